"""The model card: README.md of a bundle, with the Hub's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reviewguard.bundle.manifest import Manifest

#: Where a model is loaded from, until it has a place on the Hub.
_HERE: Final = "path/to/this/folder"
_TASK: Final = "text-classification"


def render(manifest: Manifest, results: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Write the card of a model that was just trained.

    Args:
        manifest: Of the model.
        results: As Markdown; empty: none.
        metrics: The same for machines: by the rows that were scored, and by name.
    """
    from huggingface_hub import EvalResult, ModelCardData

    encoder = manifest.recipe.get("encoder", {})
    published = "/" in str(encoder.get("repo", "")) and encoder.get("revision")
    data = ModelCardData(
        library_name="reviewguard",
        pipeline_tag=_TASK,
        tags=["reviewguard"],
        base_model=encoder["repo"] if published else None,
        model_name="reviewguard",
        eval_results=[
            EvalResult(task_type=_TASK, dataset_type="own", dataset_name=rows, metric_type=name, metric_value=round(value, 4))
            for rows, values in metrics.items()
            for name, value in values.items()
        ]
        or None,
    )
    body = [
        "# Text classifier made with reviewguard",
        f"Classes, in the order of the logits: {', '.join(f'`{name}`' for name in manifest.classes)}.",
        f"Approach: `{manifest.recipe.get('backend')}` on `{encoder.get('repo')}`; text normalisation "
        f"`{manifest.normalization}`; at most {manifest.max_length} tokens of a text are read.",
        f'```python\nfrom reviewguard import Classifier\n\nClassifier.from_pretrained("{_HERE}").predict(["A review."])\n```',
        "## Results",
        results or "None were recorded.",
        "## Intended use",
        "To rank texts like those it was trained on, or to mark them for people to look at.",
        "## Limits",
        "The figures hold for texts like those it was trained on. A detector of one generator's fakes can miss nearly all "
        "of another's, and fakes written by people are another task. Do not punish an author on its word alone.",
        "Files of this folder can hold passages of training texts: character n-grams of the baseline, and the texts whose labels "
        "contradicted each other.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def published(card: str, repo: str, license: str | None, datasets: Sequence[str]) -> str:
    """A card for a place on the Hub.

    Args:
        card: As it is.
        repo: Hub id, `owner/name`.
        license: Identifier of a licence; None: as it is.
        datasets: Hub ids of the data; empty: as they are.
    """
    from huggingface_hub import ModelCard

    found = ModelCard(card)
    changes: dict[str, Any] = {"model_name": repo.partition("/")[2], "license": license, "datasets": list(datasets) or None}
    for name, value in changes.items():
        if value is not None:
            setattr(found.data, name, value)
    found.text = found.text.replace(_HERE, repo)
    return str(found)
