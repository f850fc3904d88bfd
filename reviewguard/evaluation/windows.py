"""Choosing, on held-out rows, how a model reads texts that are longer than one window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from reviewguard.bundle.decision import log_odds
from reviewguard.bundle.windows import RULES, Rule, Windows
from reviewguard.errors import DataError
from reviewguard.inference.model import TrainedModel

#: Stands for reading the first window only.
FIRST: Final = "first"
#: Rows of each class that a choice needs.
_LEAST: Final = 20


class WindowChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How a model reads long texts, and what else was tried.

    Attributes:
        windows: What was chosen; None: the first window only.
        rows: Held-out rows that are longer than one window; the others are read as before.
        measure: What the rules were compared by.
        scores: By rule, on these rows.
    """

    windows: Windows | None
    rows: int
    measure: str
    scores: dict[str, float]

    def to_text(self) -> str:
        """Lines for a terminal."""
        chosen = self.windows.rule if self.windows else FIRST
        lines = [f"{name}: {self.measure} {score:.4f}" for name, score in self.scores.items()]
        return "\n".join([f"{chosen}, by {self.rows} held-out rows that are longer than one window", *lines])


def choose(trained: TrainedModel, texts: Sequence[str], y: NDArray[np.int64], overlap: int, max_windows: int) -> WindowChoice:
    """Compare reading the first window only with the rules for several; the first wins a tie.

    The measure is the area under the ROC curve with two classes, and accuracy with more.

    Args:
        trained: The model.
        texts: Held-out texts.
        y: Class indices, int64 (n,).
        overlap: As `Windows.overlap`.
        max_windows: As `Windows.max_windows`.

    Raises:
        DataError: If too few rows are longer than one window.
    """
    rules: tuple[Rule, ...] = RULES if trained.positive is not None else ("mean",)
    tried = {rule: Windows(overlap=overlap, rule=rule, max_windows=max_windows) for rule in rules}
    encoded = trained.tokenizer.encode(trained.normalized(texts), overlap, max_windows)
    long = [row for row, item in enumerate(encoded) if item.more]
    own, truth = [texts[row] for row in long], y[long]
    counts = np.bincount(truth, minlength=len(trained.manifest.classes))
    if counts.min() < _LEAST:
        raise DataError(
            f"of {len(texts)} held-out rows {len(long)} are longer than {trained.manifest.max_length} tokens, by class "
            f"{', '.join(map(str, counts))}; a choice needs {_LEAST} of each: pass longer texts"
        )
    readings: dict[str, Windows | None] = {FIRST: None, **{str(rule): windows for rule, windows in tried.items()}}
    scores = {
        name: _score(trained.with_windows(windows).logits(own)[0], truth, trained.positive) for name, windows in readings.items()
    }
    best = max(scores, key=scores.__getitem__)
    measure = "accuracy" if trained.positive is None else "ROC AUC"
    return WindowChoice(windows=readings[best], rows=len(long), measure=measure, scores=scores)


def _score(logits: NDArray[np.float32], y: NDArray[np.int64], positive: int | None) -> float:
    if positive is None:
        return float((logits.argmax(axis=1) == y).mean())
    return float(roc_auc_score(y == positive, log_odds(logits)[:, positive]))
