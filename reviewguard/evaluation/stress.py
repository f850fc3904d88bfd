"""How a classifier holds up when its texts are changed: recall and false-positive rate under each attack."""

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

#: The row of the report that the others are compared with.
CLEAN: Final = "clean"
_HEAD: Final = ["attack", "texts changed", "recall", "false-positive rate", "recall at the clean rate", "points lost"]


class Stress(msgspec.Struct, frozen=True, kw_only=True):
    """What one attack does.

    Attributes:
        attack: Its name.
        changed: Texts that it changed.
        recall: At the model's own threshold, with its interval (Wilson 1927).
        false_positive_rate: The same.
        recall_at_clean_rate: Recall at the threshold that gives the attacked negatives the false-positive rate of the clean ones.
        lost: Points of `recall_at_clean_rate` lost against the clean texts, 0 to 100.
    """

    attack: str
    changed: int
    recall: Estimate
    false_positive_rate: Estimate
    recall_at_clean_rate: Estimate
    lost: float


class StressReport(msgspec.Struct, frozen=True, kw_only=True):
    """Recall and false-positive rate under each attack, on texts of both classes.

    Attributes:
        name: Which rows.
        positive: The class that recall is of.
        positives: Rows of it.
        negatives: Other rows.
        results: Of the clean texts first.
    """

    name: str
    positive: str
    positives: int
    negatives: int
    results: list[Stress]

    @property
    def worst(self) -> Stress | None:
        """The attack that costs most recall at the clean false-positive rate; None without one: cuts of length are no attacks."""
        attacks = [one for one in self.results[1:] if not one.attack.startswith("first ")]
        return max(attacks, key=lambda one: one.lost, default=None)

    def rows(self) -> list[list[str]]:
        """A row for each attack, the head first; rates in percent."""
        return [
            _HEAD,
            *(
                [
                    one.attack,
                    str(one.changed),
                    *(_percent(rate) for rate in (one.recall, one.false_positive_rate, one.recall_at_clean_rate)),
                    f"{one.lost:.1f}",
                ]
                for one in self.results
            ),
        ]

    def to_text(self) -> str:
        """The report for a terminal."""
        return f"{self._about()}\n\n{text_table(self.rows())}"

    def to_markdown(self) -> str:
        """The report as Markdown."""
        return f"{self._about()}\n\n{markdown_table(self.rows())}"

    def to_json(self) -> str:
        """The report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def __str__(self) -> str:
        return self.to_text()

    def _about(self) -> str:
        return (
            f"{self.name}: {self.positives} texts of the class {self.positive!r} and {self.negatives} others; rates in percent, "
            "with 95 % intervals"
        )


def stress(trained: TrainedModel, reviews: Reviews, attacks: Sequence[str] = get_args(Attack), seed: int = 0) -> StressReport:
    """Score texts as they are, and under each attack; see `reviewguard.Classifier.stress`.

    Raises:
        ConfigError: If an attack is not known, or there are more than two classes.
        DataError: If a row lacks text or label, a label was not in training, or there are not rows of both classes.
    """
    manifest, positive = trained.manifest, trained.positive
    if positive is None:
        raise ConfigError(f"stress needs a positive class, of two; this model has {len(manifest.classes)} classes")
    for attack in attacks:
        if attack not in ATTACKS:
            raise ConfigError(f"no attack is called {attack!r}; {nearest(attack, ATTACKS)}")
    texts, labels = reviews.require_complete(manifest.classes)
    is_positive = class_indices(labels, manifest.classes) == positive
    if is_positive.all() or not is_positive.any():
        raise DataError(f"stress needs rows of {manifest.positive!r} and others; all {len(texts)} are one of the two")
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
    called, wrong = scores.argmax(axis=1) == positive, ~is_positive
    rate = _share(called[wrong])
    held = clean[0].false_positive_rate if clean else rate
    assert held.value is not None
    ranked = np.sort(scores[wrong, positive])[::-1]
    allowed = round(held.value * len(ranked))
    limit = ranked[allowed] if allowed < len(ranked) else -np.inf
    at_rate = _share(scores[is_positive, positive] > limit)
    before = (clean[0].recall_at_clean_rate if clean else at_rate).value
    assert before is not None
    assert at_rate.value is not None
    return Stress(
        attack=attack,
        changed=changed,
        recall=_share(called[is_positive]),
        false_positive_rate=rate,
        recall_at_clean_rate=at_rate,
        lost=100 * (before - at_rate.value),
    )


def _share(hits: NDArray[np.bool_]) -> Estimate:
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high))


def _percent(of: Estimate) -> str:
    assert of.value is not None
    assert of.low is not None
    assert of.high is not None
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]"
