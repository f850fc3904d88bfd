"""Setting how logits are read, on held-out rows: calibration, the operating point, abstention."""

from __future__ import annotations

import warnings
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import beta

from reviewguard.decision import Decision, OperatingPoint, Triage, log_odds
from reviewguard.errors import ConfigError, DataError
from reviewguard.estimate import Estimate
from reviewguard.metrics import Bin, calibration_error, reliability

#: The widest temperatures looked at, as logarithms.
_COLDEST, _HOTTEST = -5.0, 5.0
#: What an engine may change a logit by, at most.
_HAIR: Final = 1e-4


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration changed, on the rows that it was set on.

    Attributes:
        temperature: What logits are divided by; above 1 the model was too sure of itself.
        rows: Held-out rows.
        before: Expected calibration error, with its bootstrap interval.
        after: The same. It is a little flattered: the temperature was chosen by the same rows.
        bins: Confidence and accuracy afterwards, for a reliability diagram.
    """

    temperature: float
    rows: int
    before: Estimate
    after: Estimate
    bins: list[Bin]

    def to_text(self) -> str:
        """Lines for a terminal."""
        lines = [
            f"temperature {self.temperature:.3f}, from {self.rows} rows",
            f"expected calibration error: {self.before} -> {self.after}",
            "confidence  accuracy  rows",
            *(f"{100 * one.confidence:>9.1f}%{100 * one.accuracy:>9.1f}%{one.rows:>6}" for one in self.bins),
        ]
        return "\n".join(lines)


def calibrate(logits: NDArray[np.floating], y: NDArray[np.int64], draws: int = 1000) -> Calibration:
    """Find the temperature that makes held-out labels most likely.

    Args:
        logits: (n, classes).
        y: Class indices, int64 (n,), every class present.
        draws: Of the bootstrap; 0 leaves the intervals out.

    Raises:
        DataError: If a class has no row.
    """
    _require_all(y, logits.shape[1])
    exact = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = exact / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]).mean())

    found = minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded")
    temperature = float(np.exp(found.x))
    before, after = (Decision(temperature=t).probabilities(logits) for t in (1.0, temperature))
    return Calibration(
        temperature=temperature,
        rows=len(y),
        before=_error(y, before, draws),
        after=_error(y, after, draws),
        bins=reliability(y, after),
    )


def operating_point(
    logits: NDArray[np.floating], y: NDArray[np.int64], positive: int, max_fpr: float, *, name: str = "positive"
) -> OperatingPoint:
    """Find the threshold with the most recall whose expected rate of false positives on new rows is at most `max_fpr`.

    With k of n held-out negatives above it, that rate is (k + 1) / (n + 1): the argument of conformal prediction.

    Args:
        logits: (n, 2).
        y: Class indices, int64 (n,).
        positive: Index of the positive class.
        max_fpr: Between 0 and 1.
        name: Of the positive class, for messages.

    Raises:
        ConfigError: If `max_fpr` is not between 0 and 1.
        DataError: If there are no positive or no negative rows.
    """
    require_share("max_fpr", max_fpr, f"texts that are not {name}")
    odds, is_positive = log_odds(logits)[:, positive], y == positive
    negatives = np.sort(odds[~is_positive])[::-1]
    if not len(negatives) or len(negatives) == len(y):
        raise DataError(f"an operating point needs held-out rows of {name} and of others; all {len(y)} are one of the two")
    allowed = _allowed(max_fpr, len(negatives))
    # Above the largest negative that must not be called positive.
    threshold = _beside(negatives[max(allowed, 0)], odds, 1)
    hits, wrong = int((odds[is_positive] >= threshold).sum()), int((negatives >= threshold).sum())
    positives = int(is_positive.sum())
    point = OperatingPoint(
        threshold=threshold,
        max_fpr=max_fpr,
        negatives=len(negatives),
        false_positives=wrong,
        positives=positives,
        hits=hits,
        false_positive_rate=_beta(wrong + 1, len(negatives) - wrong, (wrong + 1) / (len(negatives) + 1)),
        recall=_beta(hits + 0.5, positives - hits + 0.5, hits / positives),
    )
    high = point.false_positive_rate.high
    assert high is not None
    if allowed < 0:
        needed = int(np.ceil(1 / max_fpr)) - 1
        warnings.warn(
            f"{len(negatives)} rows that are not {name} cannot support a false-positive rate of {100 * max_fpr:g} %: it takes at "
            f"least {needed}, and more to be sure. The threshold is the largest of their scores",
            stacklevel=2,
        )
    elif high > 2 * max_fpr:
        warnings.warn(
            f"from {len(negatives)} rows that are not {name}, the false-positive rate is only known to be "
            f"{point.false_positive_rate}; set it on more rows to be sure of {100 * max_fpr:g} %",
            stacklevel=2,
        )
    return point


def triage(logits: NDArray[np.floating], y: NDArray[np.int64], error_rate: float) -> Triage:
    """Find the floors under which a class is ruled out, so that of each class at most `error_rate` are ruled out wrongly.

    Args:
        logits: (n, classes).
        y: Class indices, int64 (n,), every class present.
        error_rate: Between 0 and 1.

    Raises:
        ConfigError: If the rate is not between 0 and 1.
        DataError: If a class has no row.
    """
    require_share("error_rate", error_rate, "texts of each class")
    classes = logits.shape[1]
    _require_all(y, classes)
    odds, floors, rows = log_odds(logits), [], []
    for column in range(classes):
        own = np.sort(odds[y == column, column])
        allowed = _allowed(error_rate, len(own))
        floors.append(_beside(own[allowed], own, -1) if allowed >= 0 else -np.finfo(np.float64).max)
        rows.append(len(own))
    return Triage(error_rate=error_rate, floors=floors, rows=rows)


def require_share(name: str, value: float, of: str) -> None:
    """Raise ConfigError unless a value lies between 0 and 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}; it is a share of the {of}, between 0 and 1")


def _allowed(rate: float, rows: int) -> int:
    """How many of n held-out rows may lie beyond a limit so that a new row does by `rate` at most; -1: the rows are too few.

    A new row is beyond the (k + 1)th of n others like it with probability (k + 1) / (n + 1).
    """
    return int(np.floor(rate * (rows + 1) + 1e-9)) - 1


def _beside(value: float, values: NDArray[np.float64], side: Literal[1, -1]) -> float:
    """A hair above or below a value, but not past the next one: so that the same row from another engine is on the same side."""
    beyond = (values - value) * side
    return float(value + side * min(_HAIR, beyond[beyond > 0].min(initial=np.inf) / 2))


def _require_all(y: NDArray[np.int64], classes: int) -> None:
    if missing := sorted(set(range(classes)) - set(y.tolist())):
        raise DataError(f"the held-out rows lack {len(missing)} of the {classes} classes; each needs some")


def _error(y: NDArray[np.int64], probabilities: NDArray[np.floating], draws: int) -> Estimate:
    value, rng = calibration_error(y, probabilities), np.random.default_rng(0)
    if not draws:
        return Estimate(value, None, None)
    samples = (rng.integers(0, len(y), len(y)) for _ in range(draws))
    low, high = np.percentile([calibration_error(y[rows], probabilities[rows]) for rows in samples], (2.5, 97.5))
    return Estimate(value, float(low), float(high))


def _beta(a: float, b: float, value: float) -> Estimate:
    low, high = beta.interval(0.95, a, b)
    return Estimate(value, float(low), float(high))
