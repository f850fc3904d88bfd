"""From logits to decisions: calibrated probabilities, the threshold of an operating point, and abstention.

It is set on held-out rows (`reviewguard.evaluation.operating`), stored in the manifest, and applied here, by numpy alone.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.errors import ConfigError
from reviewguard.estimate import Estimate

#: What `triage` says where no class, or more than one, can be ruled in.
REVIEW: Final = "needs_review"
_DRAWS: Final = 20_000


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """From which score on a text is called positive.

    Attributes:
        threshold: Log-odds of the positive class, before calibration, from which a text is called positive.
        max_fpr: The false-positive rate asked for.
        negatives: Held-out rows of the other class.
        false_positives: Of them, those called positive.
        positives: Held-out rows of the positive class.
        hits: Of them, those called positive.
        false_positive_rate: Expected on new rows, with the interval that so many rows give.
        recall: The same.
    """

    threshold: float
    max_fpr: float
    negatives: int
    false_positives: int
    positives: int
    hits: int
    false_positive_rate: Estimate
    recall: Estimate

    def precision(self, prevalence: float) -> Estimate:
        """Share of true positives among the texts called positive, where this share of all texts is positive.

        Precision on held-out rows is that of their own mixture; yours is another. The interval joins those of both rates, by
        draws from their distributions.

        Raises:
            ConfigError: If the prevalence is not between 0 and 1.
        """
        if not 0 < prevalence < 1:
            raise ConfigError(f"prevalence is {prevalence}; it is a share of all texts, between 0 and 1")
        rng = np.random.default_rng(0)
        wrong = rng.beta(*self.of_false_positives(), _DRAWS) * (1 - prevalence)
        right = rng.beta(self.hits + 0.5, self.positives - self.hits + 0.5, _DRAWS) * prevalence
        low, high = np.percentile(right / (right + wrong), (2.5, 97.5))
        assert self.recall.value is not None
        assert self.false_positive_rate.value is not None
        hit, miss = self.recall.value * prevalence, self.false_positive_rate.value * (1 - prevalence)
        return Estimate(hit / (hit + miss), float(low), float(high))

    def of_false_positives(self) -> tuple[int, int]:
        """Parameters of the beta distribution that the rate of false positives on new rows has.

        The threshold is just above the score of a held-out row. The share of new rows above the (k + 1)th largest of n scores has
        the distribution Beta(k + 1, n - k), whatever that of the scores is (David and Nagaraja 2003, Order Statistics, 2.3).
        """
        return self.false_positives + 1, self.negatives - self.false_positives

    def to_text(self) -> str:
        """Lines for a terminal."""
        return (
            f"at most {100 * self.max_fpr:g} % false positives were asked for, from {self.negatives} rows without the positive "
            f"class and {self.positives} with it\nfalse-positive rate: {self.false_positive_rate}\nrecall: {self.recall}"
        )


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    """When to leave a text to people: class-conditional split conformal prediction (Vovk 2012, arXiv:1209.2673).

    Attributes:
        error_rate: Of the texts of each class, at most this share is given another class, on average over held-out samples.
        floors: Log-odds of each class, before calibration, below which the class is ruled out.
        rows: Held-out rows of each class.
    """

    error_rate: float
    floors: list[float]
    rows: list[int]

    def to_text(self) -> str:
        """A line for a terminal."""
        return f"of each class, at most {100 * self.error_rate:g} % get another; set on {', '.join(map(str, self.rows))} rows"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's logits are read.

    Attributes:
        temperature: Logits are divided by it before they become probabilities (Guo et al. 2017, arXiv:1706.04599). Labels and
            triage do not depend on it.
        point: Where a text is called positive; None: the most probable class is taken.
        triage: Set for abstention; None: it was not.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    point: OperatingPoint | None = None
    triage: Triage | None = None

    def fits(self, classes: int, positive: str | None) -> bool:
        """Whether it can be that of a model with so many classes."""
        point_fits = self.point is None or (classes == 2 and positive is not None)
        return point_fits and (self.triage is None or len(self.triage.floors) == classes)

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Calibrated probabilities, float32 (n, classes), of logits (n, classes)."""
        exp = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(self.temperature))
        probabilities: NDArray[np.float32] = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
        return probabilities

    def scores(self, logits: NDArray[np.floating], positive: int | None) -> NDArray[np.float64]:
        """Scores (n, classes) of which the largest is that of the label: log-odds, of two classes from the threshold on."""
        odds = log_odds(logits)
        if self.point is None:
            return odds
        assert positive is not None
        odds = odds[:, positive] - self.point.threshold
        # On the threshold itself a text is positive.
        scores = np.full((len(odds), 2), -np.finfo(np.float64).tiny)
        scores[:, positive] = odds
        return scores

    def certain(self, logits: NDArray[np.floating]) -> NDArray[np.int64]:
        """The only class that is not ruled out, int64 (n,); -1 where none is, or several are."""
        assert self.triage is not None
        within = log_odds(logits) >= np.array(self.triage.floors)
        return np.where(within.sum(axis=1) == 1, within.argmax(axis=1), -1)


def log_odds(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-odds of each class against the others together, float64 (n, classes), of logits (n, classes).

    They tell apart what as a float32 probability would be 1.
    """
    exact = logits.astype(np.float64)
    columns = range(exact.shape[1])
    others = [np.logaddexp.reduce(np.delete(exact, column, axis=1), axis=1) for column in columns]
    odds: NDArray[np.float64] = exact - np.stack(others, axis=1)
    return odds
