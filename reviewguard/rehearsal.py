"""A training that stops before it trains: what a cluster should not be held to find out."""

from __future__ import annotations

import msgspec

from reviewguard.backends import Backend
from reviewguard.config import LoopConfig, Recipe
from reviewguard.data.clean import CleaningReport
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import Data, read
from reviewguard.data.subclasses import subclass_indices, subclasses_of
from reviewguard.nn.rows import micro_batch
from reviewguard.training import classes_of, parts_of


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What a training would do.

    Attributes:
        cleaning: What it would drop.
        rows: Rows of each part.
        classes: In the order of the logits.
        truncated: Training rows that are longer than the model reads.
        steps: Optimizer steps in all; None where nothing is fine-tuned.
        batch: Rows that a device computes at once, processes, and times that gradients are added up; None likewise.
    """

    cleaning: CleaningReport
    rows: dict[str, int]
    classes: list[str]
    truncated: int
    steps: int | None
    batch: tuple[int, int, int] | None

    def to_text(self) -> str:
        """For people."""
        lines = [
            self.cleaning.to_text(),
            f"rows: {', '.join(f'{name} {count}' for name, count in self.rows.items())}; classes: {', '.join(self.classes)}",
            f"{self.truncated} training rows are longer than the model reads",
        ]
        if self.batch is not None:
            rows, processes, times = self.batch
            lines.append(f"{self.steps} steps, each of {rows} rows x {processes} process(es) x {times}")
        return "\n".join([*lines, "nothing was trained or written"])


def rehearse(recipe: Recipe, backend: Backend, data: Data, validation: Data | None, processes: int) -> Rehearsal:
    """See what training would do; see `reviewguard.Classifier.rehearse`."""
    loop = getattr(recipe, "loop", None)
    batch = None
    if isinstance(loop, LoopConfig):
        rows = micro_batch(loop, processes)  # before anything is loaded
        batch = rows, processes, loop.batch_size // (rows * processes)
    reviews = read(data, text=recipe.data.text, label=recipe.data.label, settings=recipe.data)
    loaded = backend.load(recipe)
    parts, cleaning = parts_of(reviews, validation, recipe, loaded)
    classes, _ = classes_of(parts["train"], recipe.data.positive)
    for part in parts.values():
        part.require_complete(classes)
    if column := recipe.data.subclass:
        kinds = subclasses_of(parts["train"], column)
        for name in ("train", "validation"):
            if name in parts:
                subclass_indices(parts[name], column, kinds)
    normalize = NORMALIZERS[recipe.data.normalization]
    encoded = loaded.tokenizer.encode([normalize(text) for text in parts["train"].require_complete()[0]])
    return Rehearsal(
        cleaning=cleaning,
        rows={name: len(part) for name, part in parts.items()},
        classes=classes,
        truncated=sum(item.truncated for item in encoded),
        steps=-(-len(encoded) // loop.batch_size) * loop.epochs if isinstance(loop, LoopConfig) else None,
        batch=batch,
    )
