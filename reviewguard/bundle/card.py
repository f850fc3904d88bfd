"""The model card: README.md of a bundle, with metadata for the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reviewguard.bundle.manifest import Manifest

#: Placeholder for the path of a model that is not on the Hub.
_HERE: Final = "path/to/this/folder"
_TASK: Final = "text-classification"


def render(manifest: Manifest, results: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Render the card of a newly trained model.

    Args:
        manifest: The model's manifest.
        results: Results as Markdown; empty: none.
        metrics: Results for the metadata, by scored data set and metric name.
    """
    from huggingface_hub import EvalResult, ModelCardData

    encoder = manifest.recipe.get("encoder", {})
    on = f" on `{encoder['repo']}`" if encoder else ""
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
        "# Text classifier trained with reviewguard",
        f"Classes, in the order of the logits: {', '.join(f'`{name}`' for name in manifest.classes)}.",
        f"Approach: `{manifest.recipe.get('backend')}`{on}; text normalisation "
        f"`{manifest.normalization}`; maximum length {manifest.max_length} tokens.",
        f'```python\nfrom reviewguard import Classifier\n\nClassifier.from_pretrained("{_HERE}").predict(["A review."])\n```',
        "## Results",
        results or "No results were recorded.",
        "## Intended use",
        "Ranking texts similar to the training texts, or selecting them for human review.",
        "## Limitations",
        "The results apply to texts similar to the training texts. A detector of one generator's fakes can miss nearly all of "
        "another's, and fakes written by people are a different task. Do not penalise an author based on a prediction alone.",
        "Files in this folder can contain passages of training texts: character n-grams of the baseline, and texts that "
        "occurred with different labels.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def published(card: str, repo: str, license: str | None, datasets: Sequence[str]) -> str:
    """Update a card for publication on the Hub.

    Args:
        card: Current content of the card.
        repo: Hub id, `owner/name`.
        license: Licence identifier; None: unchanged.
        datasets: Hub ids of the data; empty: unchanged.
    """
    from huggingface_hub import ModelCard

    model_card = ModelCard(card)
    changes: dict[str, Any] = {"model_name": repo.partition("/")[2], "license": license, "datasets": list(datasets) or None}
    for name, value in changes.items():
        if value is not None:
            setattr(model_card.data, name, value)
    model_card.text = model_card.text.replace(_HERE, repo)
    return str(model_card)
