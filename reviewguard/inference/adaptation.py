"""Adapt an export to a new kind of text by a few examples of it, in seconds and without torch.

The embeddings stay as they are. A linear correction of the log-odds is trained on the examples and on reference texts of the
negative class, by logistic regression with the model's own log-odds as the offset: what the examples do not speak of stays as it
was. Its bias is set on the references, so that no more of them are called positive than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.decision import Decision
from reviewguard.bundle.manifest import VALIDATION
from reviewguard.errors import ConfigError, DataError
from reviewguard.inference import references as kept
from reviewguard.inference import trained_on
from reviewguard.inference.engines.adapted import AdaptedScorer, Correction
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.references import Embedded, embed

#: References that are needed: from fewer, a rate of false positives is not known.
LEAST: Final = 100
#: Strength of the L2 penalty on the weights of standardised embeddings; benchmarks/adaptation.py compares others.
PENALTY: Final = 10.0
_FOLDS: Final = 5
_STEPS, _SMALLEST_STEP = 50, 1e-6


class Adaptation(msgspec.Struct, frozen=True, kw_only=True):
    """What adapting changed.

    Attributes:
        positives: Examples of the positive class.
        negatives: Examples of the other class.
        references: Texts of the other class that the model carries.
        recall_before: Share of the positive examples that were called positive.
        recall_after: The same by corrections that did not see the example in question (five-fold cross-fitting).
        flagged_before: Share of the references that were called positive.
        flagged_after: The same with the correction that was set.
    """

    positives: int
    negatives: int
    references: int
    recall_before: float
    recall_after: float
    flagged_before: float
    flagged_after: float

    def to_text(self) -> str:
        """Lines for a terminal."""
        return (
            f"adapted to {self.positives} positive and {self.negatives} negative examples, beside {self.references} references\n"
            f"recall on examples that were left out: {100 * self.recall_before:.1f} % -> {100 * self.recall_after:.1f} %\n"
            f"references called positive: {100 * self.flagged_before:.2f} % -> {100 * self.flagged_after:.2f} %; on texts of "
            "another domain than theirs the rate may be far higher"
        )


def adapted(
    trained: TrainedModel, texts: Sequence[str], labels: Sequence[str], references: Sequence[str] | None
) -> tuple[TrainedModel, Adaptation]:
    """See `reviewguard.Classifier.adapt`."""
    manifest, scorer = trained.manifest, trained.scorer
    scorer = scorer.inner if isinstance(scorer, AdaptedScorer) else scorer
    if not isinstance(scorer, CpuScorer):
        raise ConfigError("this model is computed by torch, and adapting works on an export: export() it, and load that")
    if trained.positive is None:
        raise ConfigError(f"adapting is for two classes, and there are {len(manifest.classes)}; train() on more rows instead")
    is_positive = np.array([label == manifest.positive for label in labels])
    if is_positive.sum() < 2:
        raise DataError(f"adapting needs at least two examples of {manifest.positive!r}, and {is_positive.sum()} are given")
    if references is None and kept.FILE not in trained.files:
        raise DataError(
            "this export carries no reference texts, as it was made without validation rows; pass references=, at least "
            f"{LEAST} texts of the other class that the model was not trained on"
        )
    beside = kept.from_file(trained.read(kept.FILE)) if references is None else embed(trained, scorer, references)
    if len(beside.odds) < LEAST:
        raise DataError(f"adapting needs at least {LEAST} reference texts, and there are {len(beside.odds)}; pass references=")
    correction, report = fit(embed(trained, scorer, texts), is_positive, beside, manifest.decision)
    # What was kept of the validation rows are logits that hold no longer.
    files = {name: content for name, content in trained.files.items() if name != VALIDATION}
    files |= correction.to_file()
    if trained_on.FILE in files:
        files |= trained_on.to_file(trained.normalized(texts), trained_on.from_file(trained.read(trained_on.FILE)))
    return replace(trained, scorer=AdaptedScorer(scorer, correction, trained.positive), files=files), report


def fit(
    examples: Embedded, is_positive: NDArray[np.bool_], references: Embedded, decision: Decision, penalty: float = PENALTY
) -> tuple[Correction, Adaptation]:
    """Fit a correction.

    Args:
        examples: Of both classes, or of the positive one alone; at least two of that.
        is_positive: Of each example, bool (n,).
        references: Of the negative class.
        decision: Whose thresholds hold.
        penalty: Of L2, on the weights of standardised embeddings.
    """
    n = len(examples.odds)
    both = examples.and_then(references)
    y = np.concatenate([is_positive, np.zeros(len(references.odds), dtype=bool)])
    before = _margins(both, both.odds, decision)
    # Scores of the texts that a correction was trained on are optimistic, so the bias is set on cross-trained scores.
    after = np.empty(len(y))
    folds = _dealt(y, min(_FOLDS, int(y.sum())))
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        held_out = both.rows(out)
        correction = _regress(both.rows(~out), y[~out], penalty)
        after[out] = _margins(held_out, held_out.odds + correction.of(held_out.embeddings), decision)
    flagged = int((before[n:] >= 0).sum())
    bias = -np.nextafter(np.sort(after[n:])[::-1][flagged], np.inf) if flagged < len(references.odds) else 0.0
    found = _regress(both, y, penalty)
    report = Adaptation(
        positives=int(is_positive.sum()),
        negatives=int((~is_positive).sum()),
        references=len(references.odds),
        recall_before=float((before[y] >= 0).mean()),
        recall_after=float((after[y] + bias >= 0).mean()),
        flagged_before=flagged / len(references.odds),
        flagged_after=float((after[n:] + bias >= 0).mean()),
    )
    return Correction(found.weight, float(found.bias + bias)), report


def _margins(texts: Embedded, odds: NDArray[np.float64], decision: Decision) -> NDArray[np.float64]:
    """How far log-odds are above the threshold of a text, float64 (n,)."""
    return odds if decision.operating_point is None else odds - decision.operating_point.thresholds(texts.words)


def _dealt(y: NDArray[np.bool_], folds: int) -> NDArray[np.int64]:
    """The fold of each row, int64 (n,): each class is dealt out in turn."""
    dealt = np.empty(len(y), dtype=np.int64)
    for own in (y, ~y):
        dealt[own] = np.arange(own.sum()) % folds
    return dealt


def _regress(texts: Embedded, y: NDArray[np.bool_], penalty: float) -> Correction:
    """Logistic regression with an offset, by Newton's method with halved steps."""
    mean, spread = texts.embeddings.mean(axis=0), texts.embeddings.std(axis=0) + 1e-6
    x = np.hstack([(texts.embeddings - mean) / spread, np.ones((len(y), 1))]).astype(np.float64)
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-3  # of the bias, which is free but for examples that are all on one side

    def loss(theta: NDArray[np.float64]) -> float:
        z = texts.odds + x @ theta
        return float((np.logaddexp(0, z) - y * z).sum() + (ridge * theta * theta).sum() / 2)

    theta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh((texts.odds + x @ theta) / 2))
        gradient = x.T @ (p - y) + ridge * theta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge), gradient)
        now, size = loss(theta), 1.0
        while size > _SMALLEST_STEP and loss(theta - size * step) > now:
            size /= 2
        theta = theta - size * step
        if float(np.abs(size * step).max()) < _SMALLEST_STEP:
            break
    weight = theta[:-1] / spread
    return Correction(weight.astype(np.float32), float(theta[-1] - mean @ weight))
