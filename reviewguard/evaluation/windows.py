"""Select on held-out rows how a model reads texts that are longer than one window."""

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

#: Name for reading the first window only.
FIRST: Final = "first"
#: Minimum number of rows of each class.
_LEAST: Final = 20


class WindowChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Selected way of reading long texts, and the scores of all alternatives.

    Attributes:
        windows: The selected windows. None: the first window only.
        rows: Number of held-out rows longer than one window; other rows are not affected.
        measure: Metric of the comparison.
        scores: Score of each alternative on these rows.
    """

    windows: Windows | None
    rows: int
    measure: str
    scores: dict[str, float]

    def to_text(self) -> str:
        """Format for a terminal."""
        chosen = self.windows.rule if self.windows else FIRST
        lines = [f"{name}: {self.measure} {score:.4f}" for name, score in self.scores.items()]
        return "\n".join([f"{chosen}, on {self.rows} held-out rows that are longer than one window", *lines])


def choose(trained: TrainedModel, texts: Sequence[str], y: NDArray[np.int64], overlap: int, max_windows: int) -> WindowChoice:
    """Compare reading only the first window with the rules for several windows. In a tie, the first window is selected.

    The metric is the area under the ROC curve with two classes, and accuracy with more.

    Args:
        trained: Trained model.
        texts: Held-out texts.
        y: Class indices, int64 (n,).
        overlap: See `Windows.overlap`.
        max_windows: See `Windows.max_windows`.

    Raises:
        DataError: If too few rows are longer than one window.
    """
    rules: tuple[Rule, ...] = RULES if trained.positive is not None else ("mean",)
    candidates = {rule: Windows(overlap=overlap, rule=rule, max_windows=max_windows) for rule in rules}
    encoded = trained.tokenizer.encode(trained.normalized(texts), overlap, max_windows)
    long = [row for row, item in enumerate(encoded) if item.more]
    long_texts, truth = [texts[row] for row in long], y[long]
    counts = np.bincount(truth, minlength=len(trained.manifest.classes))
    if counts.min() < _LEAST:
        raise DataError(
            f"of {len(texts)} held-out rows, {len(long)} are longer than {trained.manifest.max_length} tokens (by class: "
            f"{', '.join(map(str, counts))}); at least {_LEAST} of each class are needed: pass longer texts"
        )
    readings: dict[str, Windows | None] = {FIRST: None, **{str(rule): windows for rule, windows in candidates.items()}}
    scores = {
        name: _score(trained.with_windows(windows).logits(long_texts)[0], truth, trained.positive)
        for name, windows in readings.items()
    }
    best = max(scores, key=scores.__getitem__)
    measure = "accuracy" if trained.positive is None else "ROC AUC"
    return WindowChoice(windows=readings[best], rows=len(long), measure=measure, scores=scores)


def _score(logits: NDArray[np.float32], y: NDArray[np.int64], positive: int | None) -> float:
    if positive is None:
        return float((logits.argmax(axis=1) == y).mean())
    return float(roc_auc_score(y == positive, log_odds(logits)[:, positive]))
