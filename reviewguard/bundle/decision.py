"""From logits to decisions: calibrated probabilities, operating points and abstention.

The settings are determined on held-out rows (`reviewguard.evaluation.operating`), stored in the manifest and applied here. This
module needs only NumPy.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import ConfigError

#: Decision for a text on which the model abstains.
REVIEW: Final = "needs_review"
#: Decision of a one-sided model for a text without evidence against it. It does not mean that a person wrote the text.
NOT_FLAGGED: Final = "not_flagged"
_DRAWS: Final = 20_000


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Threshold for texts of similar length.

    Attributes:
        words: Minimum number of words of a text in the band; the band ends where the next one begins.
        threshold: As `OperatingPoint.threshold`, for this band.
        negatives: Number of held-out rows of the other class.
        positives: Number of held-out rows of the positive class.
        false_positive_rate: Expected false positive rate on new rows of this length, with its interval.
        recall: Recall with its interval; undefined without positive rows.
    """

    words: Annotated[int, msgspec.Meta(ge=0)]
    threshold: float
    negatives: int
    positives: int
    false_positive_rate: Estimate
    recall: Estimate


class GroupRate(msgspec.Struct, frozen=True, kw_only=True):
    """False positive rate of a group of held-out negatives, such as those of one domain.

    Attributes:
        negatives: Number of rows of the group.
        false_positive_rate: Expected false positive rate on new rows, with its interval.
    """

    negatives: int
    false_positive_rate: Estimate


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The threshold above which a text is classified as positive, with its error rates.

    Attributes:
        threshold: Log-odds of the positive class, before calibration, from which a text is classified as positive. With bands, it
            is the strictest of their thresholds and applies to texts shorter than all bands.
        max_fpr: Requested false positive rate.
        negatives: Number of held-out rows of the other class.
        false_positives: Number of negatives that are classified as positive.
        positives: Number of held-out rows of the positive class.
        hits: Number of positives that are classified as positive.
        false_positive_rate: Expected false positive rate on new rows, with its interval.
        recall: Recall with its interval.
        bands: Thresholds by length, shortest first; empty: one threshold for all lengths.
        groups: False positive rate of each group in which the rate was limited.
        set_by: Group for which the thresholds were raised; empty: none.
    """

    threshold: float
    max_fpr: float
    negatives: int
    false_positives: int
    positives: int
    hits: int
    false_positive_rate: Estimate
    recall: Estimate
    bands: list[Band] = []
    groups: dict[str, GroupRate] = {}
    set_by: str = ""

    def thresholds(self, words: NDArray[np.int64]) -> NDArray[np.float64]:
        """Thresholds, float64 (n,), for texts with the given numbers of words, int64 (n,)."""
        by_band = np.array([self.threshold, *(band.threshold for band in self.bands)])
        thresholds: NDArray[np.float64] = by_band[np.searchsorted([band.words for band in self.bands], words, side="right")]
        return thresholds

    def is_too_short(self, words: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether texts with the given numbers of words, int64 (n,), are shorter than every band; bool (n,)."""
        return words < (self.bands[0].words if self.bands else 0)

    def precision(self, prevalence: float) -> Estimate:
        """Expected precision at a given prevalence of the positive class.

        Precision depends on the share of positive texts, so that of the held-out rows does not apply to other data. This estimate
        combines the measured recall and false positive rate over all lengths; its interval is sampled from their distributions.

        Args:
            prevalence: Share of positive texts among all texts, between 0 and 1.

        Raises:
            ConfigError: If the prevalence is not between 0 and 1.
        """
        if not 0 < prevalence < 1:
            raise ConfigError(f"prevalence is {prevalence}; it must be a share of all texts, between 0 and 1")
        rng = np.random.default_rng(0)
        wrong = rng.beta(*self.of_false_positives(), _DRAWS) * (1 - prevalence)
        right = rng.beta(self.hits + 0.5, self.positives - self.hits + 0.5, _DRAWS) * prevalence
        low, high = np.percentile(right / (right + wrong), (2.5, 97.5))
        assert self.recall.value is not None
        assert self.false_positive_rate.value is not None
        hit, miss = self.recall.value * prevalence, self.false_positive_rate.value * (1 - prevalence)
        return Estimate(hit / (hit + miss), float(low), float(high))

    def of_false_positives(self) -> tuple[int, int]:
        """Parameters of the beta distribution of the false positive rate on new rows.

        The threshold is just above the score of a held-out row. The share of new rows above the (k + 1)th largest of n scores is
        distributed as Beta(k + 1, n - k), for any distribution of scores (David and Nagaraja 2003, Order Statistics, 2.3).
        """
        return self.false_positives + 1, self.negatives - self.false_positives

    def to_text(self) -> str:
        """The operating point as text for a terminal."""
        lines = [
            f"requested: false positive rate of at most {100 * self.max_fpr:g} %, set on {self.negatives} negative and "
            f"{self.positives} positive rows",
            f"false positive rate: {self.false_positive_rate}",
            f"recall: {self.recall}",
            *(
                f"from {band.words} words: threshold {band.threshold:.3f}, false positive rate "
                f"{band.false_positive_rate} of {band.negatives}, recall {band.recall} of {band.positives}"
                for band in self.bands
            ),
            *(
                f"{name}: false positive rate {group.false_positive_rate} of {group.negatives}"
                for name, group in self.groups.items()
            ),
            *([f"thresholds raised to limit the rate for {self.set_by}"] if self.set_by else []),
        ]
        return "\n".join(lines)


class Abstention(msgspec.Struct, frozen=True, kw_only=True):
    """When the model abstains.

    With an error rate, abstention is class-conditional split conformal prediction (Vovk 2012, arXiv:1209.2673): the decision is a
    class if all other classes are ruled out. With one-sided decisions, the decision is never the negative class.

    Attributes:
        error_rate: Maximum share of the texts of each class that are given another class, on average over held-out samples; None:
            abstention was set by `review_rate`.
        review_rate: Share of the negatives that need review; None: abstention was set by `error_rate`.
        floors: Log-odds of each class, before calibration, below which the class is ruled out.
        rows: Number of held-out rows of each class.
        one_sided: Whether decisions are the positive class, needs review or not flagged, never the negative class.
    """

    error_rate: float | None
    floors: list[float]
    rows: list[int]
    review_rate: float | None = None
    one_sided: bool = False

    def to_text(self) -> str:
        """The abstention setting as one line for a terminal."""
        rows = f"set on {', '.join(map(str, self.rows))} rows"
        if self.review_rate is not None:
            return f"{100 * self.review_rate:g} % of the negatives need review; one-sided; {rows}"
        assert self.error_rate is not None
        limit = f"at most {100 * self.error_rate:g} %"
        promise = f"{limit} of the positives are not flagged; one-sided" if self.one_sided else f"{limit} of a class get another"
        return f"{promise}; {rows}"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's logits become probabilities and decisions.

    Attributes:
        temperature: Divisor of the logits before the softmax (Guo et al. 2017, arXiv:1706.04599). Labels and abstention do not
            depend on it.
        operating_point: Threshold for the positive class; None: the label is the most probable class.
        abstention: When the model abstains; None: never.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    operating_point: OperatingPoint | None = None
    abstention: Abstention | None = None

    def fits(self, classes: int, positive: str | None) -> bool:
        """Whether the decision settings are valid for a model with this number of classes."""
        binary = classes == 2 and positive is not None
        bounds = [band.words for band in self.operating_point.bands] if self.operating_point else []
        return (
            (self.operating_point is None or binary)
            and all(low < high for low, high in pairwise(bounds))
            and (
                self.abstention is None or (len(self.abstention.floors) == classes and (binary or not self.abstention.one_sided))
            )
        )

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Calibrated probabilities, float32 (n, classes), from logits (n, classes)."""
        exp = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(self.temperature))
        probabilities: NDArray[np.float32] = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
        return probabilities

    def scores(self, logits: NDArray[np.floating], positive: int | None, words: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores whose largest value is that of the label: log-odds, relative to the threshold if there is one.

        Args:
            logits: Logits (n, classes).
            positive: Index of the positive class; None with more than two classes.
            words: Number of words of each text, int64 (n,), on which thresholds may depend.

        Returns:
            float64 (n, classes).
        """
        odds = log_odds(logits)
        if self.operating_point is None:
            return odds
        assert positive is not None
        odds = odds[:, positive] - self.operating_point.thresholds(words)
        # A text whose log-odds equal the threshold is positive.
        scores = np.full((len(odds), 2), -np.finfo(np.float64).tiny)
        scores[:, positive] = odds
        return scores

    def certain(self, logits: NDArray[np.floating]) -> NDArray[np.int64]:
        """The index of the only class that is not ruled out, int64 (n,); -1 if there is not exactly one."""
        assert self.abstention is not None
        within = log_odds(logits) >= np.array(self.abstention.floors)
        return np.where(within.sum(axis=1) == 1, within.argmax(axis=1), -1)

    def decisions(
        self, logits: NDArray[np.floating], classes: list[str], positive: int | None, words: NDArray[np.int64]
    ) -> list[str]:
        """The decision for each text: a class, `REVIEW` or, by a one-sided model, `NOT_FLAGGED`.

        Args:
            logits: Logits (n, classes).
            classes: Classes in the order of the logits.
            positive: As for `scores`.
            words: As for `scores`.
        """
        if self.abstention is None:
            decided = self.scores(logits, positive, words).argmax(axis=1)
        elif self.abstention.one_sided:
            assert positive is not None
            flagged = self.flagged(logits, positive, words)
            cleared = log_odds(logits)[:, positive] < self.abstention.floors[positive]
            decided = np.where(flagged, positive, np.where(cleared, -2, -1))
        else:
            decided = self.certain(logits)
        if self.operating_point is not None:
            decided = np.where(self.operating_point.is_too_short(words), -1, decided)
        names = [*classes, NOT_FLAGGED, REVIEW]
        return [names[index] for index in decided]

    def flagged(self, logits: NDArray[np.floating], positive: int, words: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a one-sided model classifies a text as positive, bool (n,).

        The operating point decides if there is one. Without one, abstention by an error rate decides: the other class must be
        ruled out.
        """
        by_error_rate = self.operating_point is None and self.abstention is not None and self.abstention.error_rate is not None
        decided = self.certain(logits) if by_error_rate else self.scores(logits, positive, words).argmax(axis=1)
        flagged: NDArray[np.bool_] = decided == positive
        return flagged


def log_odds(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-odds of each class against all others, float64 (n, classes), from logits (n, classes).

    They distinguish texts whose float32 probability is rounded to 1.
    """
    exact = logits.astype(np.float64)
    columns = range(exact.shape[1])
    others = [np.logaddexp.reduce(np.delete(exact, column, axis=1), axis=1) for column in columns]
    odds: NDArray[np.float64] = exact - np.stack(others, axis=1)
    return odds
