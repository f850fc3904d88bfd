"""The model card: README.md of a bundle, rendered from its manifest."""

from __future__ import annotations

from reviewguard.bundle import Manifest


def render(manifest: Manifest, results: str) -> str:
    """Write the card as Markdown with the Hub's YAML front matter, around results given as Markdown."""
    encoder = manifest.recipe.get("encoder", {})
    front = ["---", "library_name: reviewguard", "pipeline_tag: text-classification", "tags:", "- reviewguard"]
    if "/" in str(encoder.get("repo", "")) and encoder.get("revision"):
        front.append(f"base_model: {encoder['repo']}")
    front.append("---")
    body = [
        "# Text classifier made with reviewguard",
        f"Classes, in the order of the logits: {', '.join(f'`{name}`' for name in manifest.classes)}.",
        f"Approach: `{manifest.recipe.get('backend')}` on `{encoder.get('repo')}`; text normalisation "
        f"`{manifest.normalization}`; at most {manifest.max_length} tokens of a text are read.",
        "```python\nfrom reviewguard import Classifier\n\n"
        'Classifier.from_pretrained("path/to/this/folder").predict(["A review."])\n```',
        "## Results",
        results or "None were recorded.",
        "## Limits",
        "The figures hold for texts like those it was trained on. A detector of one generator's fakes can miss nearly all "
        "of another's, and fakes written by people are another task. Do not punish an author on its word alone.",
        "Files of this folder can hold passages of training texts: character n-grams of the baseline, and the texts whose labels "
        "contradicted each other.",
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"
