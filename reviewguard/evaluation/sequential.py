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
#: Number of values at their bound whose squares must have come. With 10, at most 5 % of simulated A/A tests promote a model, for
#: accuracies of 60 to 99.5 % and splits of 2 to 50 %; with none, up to 70 % do.
RARE: Final = 10
#: Number of values for which the sequence is tightest.
_TARGET: Final = 2000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between two models, and its confidence sequence.

    Attributes:
        value: Estimate after all values.
        low: Lower bound.
        high: Upper bound.
        n: Number of values.
        path: Estimate, lower and upper bound after each of up to 200 numbers of values, from the beginning of the sequence.
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


def difference(values: NDArray[np.floating], bounds: NDArray[np.floating], level: float = 0.95) -> Difference | None:
    """The mean of values, with a confidence sequence over the order in which they came.

    The bounds tighten only after `BURN_IN` values, and only while the squares of the values add up to those of `RARE` values at
    the largest bound so far. Otherwise, rare large values, such as errors of an arm with few texts, may not have come yet, and
    the estimated variance would be too small.

    Args:
        values: Independent values of equal mean, in the order of time, float (n,).
        bounds: Largest absolute value that each could have had, float (n,).
        level: Probability that all bounds contain the mean.

    Returns:
        The difference. None: the sequence has not begun.
    """
    n, values = len(values), np.asarray(values, dtype=np.float64)
    t = np.arange(1, n + 1)
    means = np.cumsum(values) / t
    deviations = np.sqrt(np.maximum(np.cumsum(values**2) / t - means**2, 0))
    is_known = (t >= BURN_IN) & (deviations > 0) & (np.cumsum(values**2) >= RARE * np.maximum.accumulate(bounds) ** 2)
    if not is_known.any():
        return None
    start = int(is_known.argmax())
    alpha = 1 - level
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / _TARGET)
    inner = t * rho**2 + 1
    radius = deviations * np.sqrt(2 * inner / (t**2 * rho**2) * np.log(np.sqrt(inner) / alpha))
    radius[~is_known] = np.inf
    # Bounds may only tighten: what one look has excluded stays excluded.
    low = np.maximum.accumulate((means - radius)[start:])
    high = np.minimum.accumulate((means + radius)[start:])
    looks = np.unique(np.linspace(0, len(low) - 1, min(200, len(low))).astype(int))
    path = [(int(look) + start + 1, float(means[look + start]), float(low[look]), float(high[look])) for look in looks]
    return Difference(value=float(means[-1]), low=float(low[-1]), high=float(high[-1]), n=n, path=path)


def paired_difference(champion: NDArray[np.floating], challenger: NDArray[np.floating]) -> Difference | None:
    """The difference of outcomes of the same texts, challenger less champion, each float (n,) in the order of time."""
    values = challenger - champion
    return difference(values, np.full(len(values), max(1.0, float(np.abs(values).max(initial=0)))))


def unpaired_difference(
    outcomes: NDArray[np.floating], challenger: NDArray[np.bool_], share: NDArray[np.floating]
) -> Difference | None:
    """The difference of the arms' mean outcomes, challenger less champion; arguments as for `unpaired`."""
    if not len(outcomes):
        return None
    bounds = max(1.0, float(np.ptp(outcomes))) / np.minimum(share, 1 - share)
    return difference(unpaired(outcomes, challenger, share), bounds)


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
