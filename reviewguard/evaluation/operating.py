"""Set the operating point and abstention on held-out rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from reviewguard.bundle.decision import Abstention, Band, Decision, GroupRate, OperatingPoint, log_odds
from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import ConfigError, DataError
from reviewguard.evaluation.calibration import require_all_classes

#: Minimum number of held-out negatives for which a group's own false positive rate is held.
LEAST: Final = 150
#: Name of the pooled smaller groups.
OTHERS: Final = "other groups"
#: Maximum difference of a logit between engines.
_HAIR: Final = 1e-4


def operating_point(
    logits: NDArray[np.floating],
    y: NDArray[np.int64],
    positive: int,
    max_fpr: float,
    *,
    name: str = "positive",
    words: NDArray[np.int64] | None = None,
    by_length: Sequence[int] = (),
    groups: Sequence[str] | None = None,
) -> OperatingPoint:
    """Find the threshold with the highest recall whose expected false positive rate on new rows is at most `max_fpr`.

    With k of n held-out negatives above the threshold, the expected rate is (k + 1) / (n + 1), as in conformal prediction. Each
    length band gets its own threshold, set on all negatives of the band. Then all thresholds are raised by the same amount until
    the rate also holds in each group with at least `LEAST` negatives; the remaining groups are pooled.

    Args:
        logits: Logits, (n, 2).
        y: Class indices, int64 (n,).
        positive: Index of the positive class.
        max_fpr: Maximum false positive rate, between 0 and 1.
        name: Name of the positive class, for messages.
        words: Number of words of each text, int64 (n,). Required with `by_length`.
        by_length: Lower bounds of the length bands in words, ascending. Empty: one threshold for all lengths.
        groups: Group of each row, such as its domain. None: no groups.

    Raises:
        ConfigError: If `max_fpr` is not between 0 and 1, or if the bounds are not ascending.
        DataError: If there are no positive or no negative rows, or if a band has no negative rows.
    """
    require_share("max_fpr", max_fpr, f"texts that are not {name}")
    if any(low >= high for low, high in pairwise(by_length)) or any(bound < 0 for bound in by_length):
        raise ConfigError(
            f"by_length is {list(by_length)}; it must list the bands' lower bounds in words, ascending, such as 8, 20, 40, 80"
        )
    odds, negative = log_odds(logits)[:, positive], y != positive
    if negative.all() or not negative.any():
        raise DataError(f"an operating point needs held-out rows of {name} and of the other class; all {len(y)} are of one class")
    of_group = np.array([""] * len(y) if groups is None else list(groups))
    band = np.zeros(len(y), dtype=np.int64)
    if by_length:
        assert words is not None
        band = np.searchsorted(by_length, words, side="right") - 1
    thresholds = []
    for index, bound in enumerate(by_length or (0,)):
        band_negatives = negative & (band == index)
        if not band_negatives.any():
            raise DataError(
                f"the band from {bound} words has no held-out row that is not {name}: remove it from by_length, or pass "
                "rows of that length"
            )
        thresholds.append(_threshold(odds, band_negatives, max_fpr))
    in_band = band >= 0
    above = odds - np.array(thresholds)[np.maximum(band, 0)]
    pools = _pools(negative & in_band, of_group)
    increase = {group: max(_threshold(above, rows, max_fpr), 0.0) for group, rows in pools.items()}
    limiting = max(increase, key=increase.__getitem__, default="")
    thresholds = [threshold + increase.get(limiting, 0.0) for threshold in thresholds]
    predicted = in_band & (odds >= np.array(thresholds)[np.maximum(band, 0)])

    def expected_fpr(rows: NDArray[np.bool_]) -> Estimate:
        count, hits = int(rows.sum()), int((predicted & rows).sum())
        return _beta(hits + 1, count - hits, (hits + 1) / (count + 1))

    def expected_recall(rows: NDArray[np.bool_]) -> Estimate:
        count, hits = int(rows.sum()), int((predicted & rows).sum())
        return _beta(hits + 0.5, count - hits + 0.5, hits / count) if count else Estimate(None, None, None)

    negatives, positives = negative & in_band, ~negative & in_band
    bands = [
        Band(
            words=bound,
            threshold=thresholds[index],
            negatives=int((negatives & (band == index)).sum()),
            positives=int((positives & (band == index)).sum()),
            false_positive_rate=expected_fpr(negatives & (band == index)),
            recall=expected_recall(positives & (band == index)),
        )
        for index, bound in enumerate(by_length)
    ]
    point = OperatingPoint(
        threshold=max(thresholds),
        max_fpr=max_fpr,
        negatives=int(negatives.sum()),
        false_positives=int((predicted & negatives).sum()),
        positives=int(positives.sum()),
        hits=int((predicted & positives).sum()),
        false_positive_rate=expected_fpr(negatives),
        recall=expected_recall(positives),
        bands=bands,
        groups={
            group: GroupRate(negatives=int(rows.sum()), false_positive_rate=expected_fpr(rows)) for group, rows in pools.items()
        },
        set_by=limiting if increase.get(limiting) else "",
    )
    for item in bands:
        _warn_of_few(item, max_fpr, f"not {name} in the band from {item.words} words")
    if not bands:
        _warn_of_few(point, max_fpr, f"not {name}")
    return point


def _pools(rows: NDArray[np.bool_], of_group: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Groups that must satisfy the rate: large ones, and the others pooled if large enough. Empty for a single group."""
    names, counts = np.unique(of_group[rows], return_counts=True)
    if len(names) < 2:
        return {}
    large = names[counts >= LEAST].tolist()
    pools = {name: rows & (of_group == name) for name in large}
    rest = rows & ~np.isin(of_group, large)
    return {**pools, OTHERS: rest} if rest.sum() >= LEAST else pools


def _threshold(odds: NDArray[np.float64], rows: NDArray[np.bool_], max_fpr: float) -> float:
    """Just above the highest-scoring of these rows that must stay negative. With too few rows: above all of them."""
    ranked = np.sort(odds[rows])[::-1]
    return _beside(ranked[max(_allowed(max_fpr, len(ranked)), 0)], odds, 1)


def _warn_of_few(point: OperatingPoint | Band, max_fpr: float, kind: str) -> None:
    high = point.false_positive_rate.high
    assert high is not None
    if _allowed(max_fpr, point.negatives) < 0:
        needed = int(np.ceil(1 / max_fpr)) - 1
        warnings.warn(
            f"{point.negatives} rows that are {kind} cannot support a false positive rate of {100 * max_fpr:g} %: at "
            f"least {needed} are needed, and more for a narrow interval. The threshold is above all their scores",
            stacklevel=3,
        )
    elif high > 2 * max_fpr:
        warnings.warn(
            f"from {point.negatives} rows that are {kind}, the false positive rate is only known to be "
            f"{point.false_positive_rate}; use more rows to confirm {100 * max_fpr:g} %",
            stacklevel=3,
        )


def abstain_by_review_rate(
    logits: NDArray[np.floating],
    y: NDArray[np.int64],
    positive: int,
    review_rate: float,
    decision: Decision,
    words: NDArray[np.int64],
) -> Abstention:
    """Find the floor below which a one-sided model does not flag a text, so that a given share of the negatives needs review.

    Args:
        logits: Logits, (n, 2).
        y: Class indices, int64 (n,).
        positive: Index of the positive class.
        review_rate: Share of the negatives between the floor and the threshold, between 0 and 1.
        decision: Decision settings whose operating point determines which texts are classified as positive.
        words: Number of words of each text, int64 (n,).

    Raises:
        ConfigError: If the rate is not between 0 and 1.
        DataError: If a class has no rows.
    """
    require_share("review_rate", review_rate, "texts of the other class")
    require_all_classes(y, 2)
    odds = log_odds(logits)[:, positive]
    negative = y != positive
    if decision.operating_point is not None:
        negative &= ~decision.operating_point.is_too_short(words)
    candidates = np.sort(odds[negative & ~decision.flagged(logits, positive, words)])[::-1]
    count = min(round(review_rate * int(negative.sum())), len(candidates))
    floors = np.full(2, -np.finfo(np.float64).max)
    floors[positive] = _beside(candidates[count - 1], odds, -1) if count else np.finfo(np.float64).max
    rows = [int((y == column).sum()) for column in range(2)]
    return Abstention(error_rate=None, review_rate=review_rate, floors=floors.tolist(), rows=rows, one_sided=True)


def abstain_by_error_rate(
    logits: NDArray[np.floating], y: NDArray[np.int64], error_rate: float, *, one_sided: bool = False
) -> Abstention:
    """Find the floors below which a class is ruled out, so that at most `error_rate` of each class are ruled out wrongly.

    Args:
        logits: Logits, (n, classes).
        y: Class indices, int64 (n,), with every class present.
        error_rate: Maximum error rate of each class, between 0 and 1.
        one_sided: Whether only the positive class is decided on.

    Raises:
        ConfigError: If the rate is not between 0 and 1.
        DataError: If a class has no rows.
    """
    require_share("error_rate", error_rate, "texts of each class")
    classes = logits.shape[1]
    require_all_classes(y, classes)
    odds, floors, rows = log_odds(logits), [], []
    for column in range(classes):
        ranked = np.sort(odds[y == column, column])
        allowed = _allowed(error_rate, len(ranked))
        floors.append(_beside(ranked[allowed], ranked, -1) if allowed >= 0 else -np.finfo(np.float64).max)
        rows.append(len(ranked))
    return Abstention(error_rate=error_rate, floors=floors, rows=rows, one_sided=one_sided)


def require_share(name: str, value: float, of: str) -> None:
    """Raise ConfigError unless a value lies between 0 and 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}; it must be a share of the {of}, between 0 and 1")


def _allowed(rate: float, rows: int) -> int:
    """How many of n held-out rows may exceed a limit so that a new row does with probability at most `rate`; -1: too few rows.

    A new row exceeds the (k + 1)th of n exchangeable rows with probability (k + 1) / (n + 1).
    """
    return int(np.floor(rate * (rows + 1) + 1e-9)) - 1


def _beside(value: float, values: NDArray[np.float64], side: Literal[1, -1]) -> float:
    """Slightly above or below a value, but not past the next one, so that rounding in another engine does not change sides."""
    beyond = (values - value) * side
    return float(value + side * min(_HAIR, beyond[beyond > 0].min(initial=np.inf) / 2))


def _beta(a: float, b: float, value: float) -> Estimate:
    low, high = beta.interval(0.95, a, b)
    return Estimate(value, float(low), float(high))
