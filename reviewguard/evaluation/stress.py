"""Stress tests: recall and false positive rate on perturbed texts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Final, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from tqdm import tqdm

from reviewguard.bundle.estimate import Estimate
from reviewguard.data.perturb import ATTACKS, Attack, perturbed
from reviewguard.data.reviews import Reviews, class_indices
from reviewguard.data.tokens import word_counts
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.evaluation.tables import markdown_table, text_table
from reviewguard.inference.model import TrainedModel

#: Name of the row with unchanged texts.
CLEAN: Final = "clean"
_HEAD: Final = ["attack", "texts changed", "recall", "false positive rate", "recall at the clean rate", "points lost"]


class Stress(msgspec.Struct, frozen=True, kw_only=True):
    """Scores under one attack.

    Attributes:
        attack: Name of the attack.
        changed: Number of texts changed by the attack.
        recall: Recall at the model's own threshold, with its interval (Wilson 1927).
        false_positive_rate: False positive rate at the model's own threshold, with its interval.
        recall_at_clean_rate: Recall at the threshold for which the perturbed negatives have the false positive rate of the clean
            ones.
        lost: Loss of `recall_at_clean_rate` against the clean texts, in percentage points.
    """

    attack: str
    changed: int
    recall: Estimate
    false_positive_rate: Estimate
    recall_at_clean_rate: Estimate
    lost: float


class StressReport(msgspec.Struct, frozen=True, kw_only=True):
    """Recall and false positive rate under each attack.

    Attributes:
        name: Name of the rows.
        positive: The positive class.
        positives: Number of positive rows.
        negatives: Number of negative rows.
        results: Scores on the clean texts, followed by those under each attack.
    """

    name: str
    positive: str
    positives: int
    negatives: int
    results: list[Stress]

    @property
    def worst(self) -> Stress | None:
        """The attack with the largest loss of recall at the clean false positive rate. None: no attack.

        Truncation to the first words is not counted as an attack.
        """
        attacks = [result for result in self.results[1:] if not result.attack.startswith("first ")]
        return max(attacks, key=lambda result: result.lost, default=None)

    def rows(self) -> list[list[str]]:
        """Table rows, one per attack, after a header. Rates are in percent."""
        return [
            _HEAD,
            *(
                [
                    result.attack,
                    str(result.changed),
                    *(_percent(rate) for rate in (result.recall, result.false_positive_rate, result.recall_at_clean_rate)),
                    f"{result.lost:.1f}",
                ]
                for result in self.results
            ),
        ]

    def to_text(self) -> str:
        """Format for a terminal."""
        return f"{self._about()}\n\n{text_table(self.rows())}"

    def to_markdown(self) -> str:
        """Format as Markdown."""
        return f"{self._about()}\n\n{markdown_table(self.rows())}"

    def to_json(self) -> str:
        """Format as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def __str__(self) -> str:
        return self.to_text()

    def _about(self) -> str:
        return (
            f"{self.name}: {self.positives} texts of the class {self.positive!r} and {self.negatives} others; rates in percent "
            "with 95 % intervals"
        )


def stress(trained: TrainedModel, reviews: Reviews, attacks: Sequence[str] = get_args(Attack), seed: int = 0) -> StressReport:
    """Score texts unchanged and under each attack. See `reviewguard.Classifier.stress`.

    Raises:
        ConfigError: If an attack is unknown, or if the model has more than two classes.
        DataError: If a text or label is missing, a label is not a class of the model, or one of the classes has no rows.
    """
    manifest, positive = trained.manifest, trained.positive
    if positive is None:
        raise ConfigError(f"stress tests require two classes; this model has {len(manifest.classes)} classes")
    for attack in attacks:
        if attack not in ATTACKS:
            raise ConfigError(f"unknown attack {attack!r}; {nearest(attack, ATTACKS)}")
    texts, labels = reviews.require_complete(manifest.classes)
    is_positive = class_indices(labels, manifest.classes) == positive
    if is_positive.all() or not is_positive.any():
        raise DataError(f"stress tests need rows of both classes; all {len(texts)} are of one class")
    results: list[Stress] = []
    for attack in tqdm([CLEAN, *attacks], desc="attacks", unit=" attacks", disable=None, leave=False):
        changed = texts if attack == CLEAN else [perturbed(text, attack, seed) for text in texts]  # type: ignore[arg-type]
        logits, encoded = trained.logits(changed)
        scores = manifest.decision.scores(logits, positive, word_counts(encoded))
        results.append(_measured(attack, sum(map(operator.ne, texts, changed)), scores, positive, is_positive, results[:1]))
    assert manifest.positive is not None
    return StressReport(
        name=reviews.source,
        positive=manifest.positive,
        positives=int(is_positive.sum()),
        negatives=int((~is_positive).sum()),
        results=results,
    )


def _measured(
    attack: str,
    changed: int,
    scores: NDArray[np.float64],
    positive: int,
    is_positive: NDArray[np.bool_],
    clean: Sequence[Stress],
) -> Stress:
    predicted, is_negative = scores.argmax(axis=1) == positive, ~is_positive
    rate = _share(predicted[is_negative])
    clean_rate = clean[0].false_positive_rate if clean else rate
    assert clean_rate.value is not None
    ranked = np.sort(scores[is_negative, positive])[::-1]
    allowed = round(clean_rate.value * len(ranked))
    limit = ranked[allowed] if allowed < len(ranked) else -np.inf
    at_rate = _share(scores[is_positive, positive] > limit)
    clean_recall = (clean[0].recall_at_clean_rate if clean else at_rate).value
    assert clean_recall is not None
    assert at_rate.value is not None
    return Stress(
        attack=attack,
        changed=changed,
        recall=_share(predicted[is_positive]),
        false_positive_rate=rate,
        recall_at_clean_rate=at_rate,
        lost=100 * (clean_recall - at_rate.value),
    )


def _share(hits: NDArray[np.bool_]) -> Estimate:
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high))


def _percent(of: Estimate) -> str:
    assert of.value is not None
    assert of.low is not None
    assert of.high is not None
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]"
