"""From logits to decisions: calibrated probabilities, the threshold of an operating point, and abstention.

It is set on held-out rows (`reviewguard.evaluation.operating`), stored in the manifest, and applied here, by numpy alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import ConfigError

#: The decision on a text that a person should look at.
REVIEW: Final = "needs_review"
#: The decision of a one-sided model on a text that it has nothing against. It does not say that a person wrote it.
NOT_FLAGGED: Final = "not_flagged"
_DRAWS: Final = 20_000


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """Where texts of similar length are called positive.

    Attributes:
        words: Shortest text of the band; it ends where the next one begins.
        threshold: As `OperatingPoint.threshold`, for this band.
        negatives: Held-out rows of the other class.
        positives: Held-out rows of the positive class.
        false_positive_rate: Expected on new rows of this length, with its interval.
        recall: The same; undefined without positive rows.
    """

    words: Annotated[int, msgspec.Meta(ge=0)]
    threshold: float
    negatives: int
    positives: int
    false_positive_rate: Estimate
    recall: Estimate


class GroupRate(msgspec.Struct, frozen=True, kw_only=True):
    """Of a group of held-out negatives, such as those of one domain, how many are called positive.

    Attributes:
        negatives: Rows.
        false_positive_rate: Expected on new rows, with its interval.
    """

    negatives: int
    false_positive_rate: Estimate


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """From which score on a text is called positive.

    Attributes:
        threshold: Log-odds of the positive class, before calibration, from which a text is called positive. With bands, it is the
            strictest of theirs, and holds for texts that are shorter than all of them.
        max_fpr: The false-positive rate asked for.
        negatives: Held-out rows of the other class.
        false_positives: Of them, those called positive.
        positives: Held-out rows of the positive class.
        hits: Of them, those called positive.
        false_positive_rate: Expected on new rows, with the interval that so many rows give.
        recall: The same.
        bands: Thresholds by length, shortest first; empty: one for every length.
        groups: False-positive rates of groups that the thresholds hold for.
        set_by: The group for whose sake the thresholds were raised; empty: none needed it.
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
        """The threshold for texts of so many words, float64 (n,), of int64 (n,)."""
        found = np.array([self.threshold, *(band.threshold for band in self.bands)])
        thresholds: NDArray[np.float64] = found[np.searchsorted([band.words for band in self.bands], words, side="right")]
        return thresholds

    def is_too_short(self, words: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether texts of so many words, int64 (n,), are shorter than every band; bool (n,)."""
        return words < (self.bands[0].words if self.bands else 0)

    def precision(self, prevalence: float) -> Estimate:
        """Share of true positives among the texts called positive, where this share of all texts is positive.

        Precision on held-out rows is that of their own mixture; yours is another. It is computed from the recall and the
        false-positive rate that were measured, over all lengths; the interval joins those of both, by draws from their
        distributions.

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
        lines = [
            f"at most {100 * self.max_fpr:g} % false positives were asked for, from {self.negatives} rows without the positive "
            f"class and {self.positives} with it",
            f"false-positive rate: {self.false_positive_rate}",
            f"recall: {self.recall}",
            *(
                f"from {one.words} words: threshold {one.threshold:.3f}, false-positive rate "
                f"{one.false_positive_rate} of {one.negatives}, recall {one.recall} of {one.positives}"
                for one in self.bands
            ),
            *(f"{name}: false-positive rate {one.false_positive_rate} of {one.negatives}" for name, one in self.groups.items()),
            *([f"raised to hold the rate for {self.set_by}"] if self.set_by else []),
        ]
        return "\n".join(lines)


class Abstention(msgspec.Struct, frozen=True, kw_only=True):
    """When to leave a text to people.

    By an error rate, it is class-conditional split conformal prediction (Vovk 2012, arXiv:1209.2673): a class is decided on where
    every other is ruled out. One-sided, only the positive class is ever decided on.

    Attributes:
        error_rate: Of the texts of each class, at most this share is given another class, on average over held-out samples; None:
            it was set by `review_rate`.
        review_rate: Share of the negatives that go to review; None: it was set by `error_rate`.
        floors: Log-odds of each class, before calibration, below which the class is ruled out.
        rows: Held-out rows of each class.
        one_sided: No text is certified: it is called positive, sent to review, or not flagged.
    """

    error_rate: float | None
    floors: list[float]
    rows: list[int]
    review_rate: float | None = None
    one_sided: bool = False

    def to_text(self) -> str:
        """A line for a terminal."""
        rows = f"set on {', '.join(map(str, self.rows))} rows"
        if self.review_rate is not None:
            return f"of the negatives, {100 * self.review_rate:g} % go to review; one-sided; {rows}"
        assert self.error_rate is not None
        most = f"at most {100 * self.error_rate:g} %"
        promise = f"of positives, {most} are not flagged; one-sided" if self.one_sided else f"of each class, {most} get another"
        return f"{promise}; {rows}"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's logits are read.

    Attributes:
        temperature: Logits are divided by it before they become probabilities (Guo et al. 2017, arXiv:1706.04599). Labels and
            abstention do not depend on it.
        operating_point: Where a text is called positive; None: the most probable class is taken.
        abstention: When the model abstains; None: never.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    operating_point: OperatingPoint | None = None
    abstention: Abstention | None = None

    def fits(self, classes: int, positive: str | None) -> bool:
        """Whether it can be that of a model with so many classes."""
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
        """Calibrated probabilities, float32 (n, classes), of logits (n, classes)."""
        exp = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(self.temperature))
        probabilities: NDArray[np.float32] = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
        return probabilities

    def scores(self, logits: NDArray[np.floating], positive: int | None, words: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of which the largest is that of the label: log-odds, of two classes from the threshold on.

        Args:
            logits: (n, classes).
            positive: Index of the positive class; None with more than two.
            words: Of each text, int64 (n,): thresholds may depend on it.

        Returns:
            float64 (n, classes).
        """
        odds = log_odds(logits)
        if self.operating_point is None:
            return odds
        assert positive is not None
        odds = odds[:, positive] - self.operating_point.thresholds(words)
        # On the threshold itself a text is positive.
        scores = np.full((len(odds), 2), -np.finfo(np.float64).tiny)
        scores[:, positive] = odds
        return scores

    def certain(self, logits: NDArray[np.floating]) -> NDArray[np.int64]:
        """The only class that is not ruled out, int64 (n,); -1 where none is, or several are."""
        assert self.abstention is not None
        within = log_odds(logits) >= np.array(self.abstention.floors)
        return np.where(within.sum(axis=1) == 1, within.argmax(axis=1), -1)

    def decisions(
        self, logits: NDArray[np.floating], classes: list[str], positive: int | None, words: NDArray[np.int64]
    ) -> list[str]:
        """What is decided on each text: a class, `REVIEW` or, by a one-sided model, `NOT_FLAGGED`.

        Args:
            logits: (n, classes).
            classes: In the order of the logits.
            positive: As for `scores`.
            words: The same.
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
        """Whether a one-sided model calls a text positive, bool (n,).

        By the operating point, or where there is none by the error rate: where the other class is ruled out.
        """
        by_error_rate = self.operating_point is None and self.abstention is not None and self.abstention.error_rate is not None
        decided = self.certain(logits) if by_error_rate else self.scores(logits, positive, words).argmax(axis=1)
        flagged: NDArray[np.bool_] = decided == positive
        return flagged


def log_odds(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-odds of each class against the others together, float64 (n, classes), of logits (n, classes).

    They tell apart what as a float32 probability would be 1.
    """
    exact = logits.astype(np.float64)
    columns = range(exact.shape[1])
    others = [np.logaddexp.reduce(np.delete(exact, column, axis=1), axis=1) for column in columns]
    odds: NDArray[np.float64] = exact - np.stack(others, axis=1)
    return odds
