"""Calibrate probabilities on held-out rows by temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from reviewguard.bundle.decision import Decision
from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import DataError
from reviewguard.evaluation.metrics import Bin, calibration_error, reliability

#: Bounds of the temperature search, as logarithms.
_COLDEST, _HOTTEST = -5.0, 5.0


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Result of calibration, on the rows that it was set on.

    Attributes:
        temperature: Divisor of the logits. A value above 1 means that the model was overconfident.
        rows: Number of held-out rows.
        before: Expected calibration error before calibration, with its bootstrap interval.
        after: Expected calibration error after calibration. Slightly optimistic, because the temperature was chosen on the same
            rows.
        bins: Confidence and accuracy after calibration, for a reliability diagram.
    """

    temperature: float
    rows: int
    before: Estimate
    after: Estimate
    bins: list[Bin]

    def to_text(self) -> str:
        """Format for a terminal."""
        lines = [
            f"temperature {self.temperature:.3f}, from {self.rows} rows",
            f"expected calibration error: {self.before} -> {self.after}",
            "confidence  accuracy  rows",
            *(f"{100 * item.confidence:>9.1f}%{100 * item.accuracy:>9.1f}%{item.rows:>6}" for item in self.bins),
        ]
        return "\n".join(lines)


def calibrate(logits: NDArray[np.floating], y: NDArray[np.int64], draws: int = 1000) -> Calibration:
    """Find the temperature that maximises the likelihood of held-out labels.

    Args:
        logits: Logits, (n, classes).
        y: Class indices, int64 (n,), with every class present.
        draws: Number of bootstrap draws. 0: no intervals.

    Raises:
        DataError: If a class has no rows.
    """
    require_all_classes(y, logits.shape[1])
    exact = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = exact / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]).mean())

    optimum = minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded")
    temperature = float(np.exp(optimum.x))
    before, after = (Decision(temperature=t).probabilities(logits) for t in (1.0, temperature))
    return Calibration(
        temperature=temperature,
        rows=len(y),
        before=_error(y, before, draws),
        after=_error(y, after, draws),
        bins=reliability(y, after),
    )


def require_all_classes(y: NDArray[np.int64], classes: int) -> None:
    """Raise DataError if a class has no held-out row."""
    if missing := sorted(set(range(classes)) - set(y.tolist())):
        raise DataError(f"the held-out rows lack {len(missing)} of the {classes} classes; each class needs rows")


def _error(y: NDArray[np.int64], probabilities: NDArray[np.floating], draws: int) -> Estimate:
    value, rng = calibration_error(y, probabilities), np.random.default_rng(0)
    if not draws:
        return Estimate(value, None, None)
    samples = (rng.integers(0, len(y), len(y)) for _ in range(draws))
    low, high = np.percentile([calibration_error(y[rows], probabilities[rows]) for rows in samples], (2.5, 97.5))
    return Estimate(value, float(low), float(high))
