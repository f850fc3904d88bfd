"""Differences that stay valid however often they are looked at: asymptotic confidence sequences.

Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021), "Time-uniform central limit theory and asymptotic confidence
sequences", arXiv:2103.06476, theorem 2.2. An ordinary 95 % interval is right in 95 % of the looks; a confidence sequence
is right in all looks of 95 % of the experiments.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

#: Number of values before which nothing is said: the construction is asymptotic.
BURN_IN: Final = 100
#: Number of values for which the sequence is tightest.
_TARGET: Final = 2000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between two models, and its confidence sequence.

    Attributes:
        value: Estimate after all values.
        low: Lower bound.
        high: Upper bound.
        n: Number of values.
        path: Estimate, lower and upper bound after each of up to 200 numbers of values, from `BURN_IN` on.
    """

    value: float
    low: float
    high: float
    n: int
    path: list[tuple[int, float, float, float]]

    @property
    def is_significant(self) -> bool:
        """Whether the sequence excludes 0."""
        return not self.low <= 0 <= self.high


def difference(values: NDArray[np.floating], level: float = 0.95) -> Difference | None:
    """The mean of values, with a confidence sequence over the order in which they came.

    Args:
        values: Independent values of equal mean, in the order of time, float (n,).
        level: Probability that all bounds contain the mean.

    Returns:
        The difference. None: there are fewer than `BURN_IN` values, or all values are equal.
    """
    n, values = len(values), np.asarray(values, dtype=np.float64)
    if n < BURN_IN or values.min() == values.max():
        return None
    t = np.arange(1, n + 1)
    means = np.cumsum(values) / t
    deviations = np.sqrt(np.maximum(np.cumsum(values**2) / t - means**2, 0))
    alpha = 1 - level
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / _TARGET)
    inner = t * rho**2 + 1
    radius = deviations * np.sqrt(2 * inner / (t**2 * rho**2) * np.log(np.sqrt(inner) / alpha))
    # Bounds may only tighten: what one look has excluded stays excluded.
    low = np.maximum.accumulate((means - radius)[BURN_IN - 1 :])
    high = np.minimum.accumulate((means + radius)[BURN_IN - 1 :])
    looks = np.unique(np.linspace(0, len(low) - 1, min(200, len(low))).astype(int))
    path = [(int(look) + BURN_IN, float(means[look + BURN_IN - 1]), float(low[look]), float(high[look])) for look in looks]
    return Difference(value=float(means[-1]), low=float(low[-1]), high=float(high[-1]), n=n, path=path)


def unpaired(outcomes: NDArray[np.floating], challenger: NDArray[np.bool_], share: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values whose mean is the difference of the arms' mean outcomes, challenger less champion, from assigned texts.

    Each outcome is weighted by the inverse of the probability of its arm (Horvitz and Thompson 1952), less the mean of the
    outcomes before it, which does not change the expectation and reduces the variance.

    Args:
        outcomes: Outcomes in the order of time, float (n,).
        challenger: Whether the challenger answered, bool (n,).
        share: Probability that the challenger answers, float (n,), between 0 and 1.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    before = np.concatenate([[0.5], np.cumsum(outcomes)[:-1] / np.arange(1, len(outcomes))]) if len(outcomes) else outcomes
    sign = np.where(challenger, 1 / share, -1 / (1 - share))
    centred: NDArray[np.float64] = (outcomes - before) * sign
    return centred


def f1_influence(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values whose mean is the F1 of predictions, by the delta method; their spread is that of F1.

    Args:
        truth: Whether each text is positive, bool (n,), at least one.
        predicted: Whether each is classified as positive, bool (n,).
    """
    both, either = (truth & predicted).astype(np.float64), truth.astype(np.float64) + predicted
    f1 = 2 * both.sum() / either.sum()
    values: NDArray[np.float64] = f1 + (2 * both - f1 * either) / either.mean()
    return values
