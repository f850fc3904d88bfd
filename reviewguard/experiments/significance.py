"""Significance of differences between models, the Pareto front, and the recommended model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, false_discovery_control, permutation_test

from reviewguard.bundle.estimate import Estimate

_DRAWS = 2000
_BATCH = 200  # draws in memory at once


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The difference in accuracy between two models.

    Attributes:
        difference: Difference of accuracies, with the percentile interval of a paired bootstrap over rows.
        p: P-value, adjusted for all pairs.
    """

    difference: Estimate
    p: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05, which bounds the expected share of false findings by 5 %."""
        return self.p < 0.05


def paired(right: Mapping[str, NDArray[np.bool_]]) -> dict[tuple[str, str], Difference]:
    """Compare every two models on the same rows.

    Rows are resampled and seeds are averaged, so the result covers these runs on other rows, not other runs. P-values come from
    a paired permutation test and are adjusted by the false discovery rate (Benjamini and Hochberg 1995).

    Args:
        right: Whether each prediction is correct, bool (seeds, rows), by model. All models have the same rows.

    Returns:
        The first model of each pair minus the second, in both orders.
    """
    means = {name: answers.mean(axis=0) for name, answers in right.items()}
    pairs = list(combinations(means, 2))
    if not pairs:
        return {}
    estimates, p_values = [], []
    for one, other in pairs:
        each = means[one] - means[other]
        estimates.append(_interval(each))
        p_values.append(_chance(each))
    adjusted = false_discovery_control(p_values)
    differences = {}
    for (one, other), estimate, p in zip(pairs, estimates, adjusted.tolist(), strict=True):
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        differences[one, other] = Difference(difference=estimate, p=p)
        mirrored = Estimate(-estimate.value, -estimate.high, -estimate.low)
        differences[other, one] = Difference(difference=mirrored, p=p)
    return differences


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the Pareto-optimal points, the largest first coordinate first.

    Args:
        points: Two coordinates by name; larger is better.
    """
    best, optimal = -np.inf, []
    for name, (_, second) in sorted(points.items(), key=lambda item: item[1], reverse=True):
        if second > best:
            optimal.append(name)
            best = second
    return optimal


def recommend(accuracy: Mapping[str, float], speed: Mapping[str, float], pairs: Mapping[tuple[str, str], Difference]) -> str:
    """The fastest of the models that are not significantly worse than the most accurate one."""
    best = max(accuracy, key=accuracy.__getitem__)
    as_good = [name for name in accuracy if name == best or not pairs[best, name].significant]
    return max(as_good, key=speed.__getitem__)


def _interval(each: NDArray[np.floating]) -> Estimate:
    value = float(each.mean())
    if not each.any():
        return Estimate(value, 0.0, 0.0)
    rng = np.random.default_rng(0)
    drawn = bootstrap((each,), np.mean, n_resamples=_DRAWS, batch=_BATCH, method="percentile", rng=rng).confidence_interval
    return Estimate(value, float(drawn.low), float(drawn.high))


def _chance(each: NDArray[np.floating]) -> float:
    rng = np.random.default_rng(0)
    drawn = permutation_test((each,), np.mean, permutation_type="samples", n_resamples=_DRAWS, batch=_BATCH, rng=rng)
    return float(drawn.pvalue)
