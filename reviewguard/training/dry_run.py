"""Dry runs: everything that training does before it trains, so that errors show up before a cluster is reserved."""

from __future__ import annotations

import msgspec

from reviewguard.config import LoopConfig, Recipe
from reviewguard.data.clean import CleaningReport
from reviewguard.data.tables import Data
from reviewguard.training.backends import Backend
from reviewguard.training.finetuning.batches import Batches, divided
from reviewguard.training.plan import prepare


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a training run.

    Attributes:
        cleaning: Rows that cleaning would drop.
        rows: Number of rows in each split.
        classes: Labels, in the order of the logits.
        truncated: Number of training rows longer than `encoder.max_length` tokens.
        steps: Optimizer steps of the whole run. None: the backend does not fine-tune.
        batches: How each step is divided. None: the backend does not fine-tune.
    """

    cleaning: CleaningReport
    rows: dict[str, int]
    classes: list[str]
    truncated: int
    steps: int | None
    batches: Batches | None

    def to_text(self) -> str:
        """Format the dry run for a terminal."""
        lines = [
            self.cleaning.to_text(),
            f"rows: {', '.join(f'{name} {count}' for name, count in self.rows.items())}; classes: {', '.join(self.classes)}",
            f"{self.truncated} training rows will be truncated",
        ]
        if self.batches is not None:
            rows, processes, accumulation = self.batches
            lines.append(f"{self.steps} steps, each of {rows} rows x {processes} process(es) x {accumulation} micro-batches")
        return "\n".join([*lines, "dry run: nothing was trained or written"])


def dry_run(recipe: Recipe, backend: Backend, data: Data, validation: Data | None, processes: int) -> DryRun:
    """Plan the training and describe it; see `reviewguard.Classifier.dry_run`."""
    loop = getattr(recipe, "loop", None)
    batches = divided(loop, processes) if isinstance(loop, LoopConfig) else None  # fails before anything is loaded
    plan = prepare(recipe, backend, data, validation)
    assert plan.cleaning is not None
    return DryRun(
        cleaning=plan.cleaning,
        rows={name: len(part) for name, part in plan.parts.items()},
        classes=plan.classes,
        truncated=sum(item.truncated for item in plan.encoder.tokenizer.encode(plan.labelled["train"].texts)),
        steps=-(-len(plan.parts["train"]) // loop.batch_size) * loop.epochs if isinstance(loop, LoopConfig) else None,
        batches=batches,
    )
