"""Adapt an export to a new kind of text from a few examples, in seconds and without torch.

The embeddings do not change. A linear correction of the log-odds is fitted to the examples and to reference texts of the
negative class, by logistic regression with the model's log-odds as offset, so that directions without evidence stay unchanged.
Its bias is set so that no more references are classified as positive than before.
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
from reviewguard.inference import references as stored
from reviewguard.inference import trained_on
from reviewguard.inference.engines.adapted import AdaptedScorer, Correction
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.references import Embedded, embed

#: Minimum number of references; fewer do not determine a false positive rate.
LEAST: Final = 100
#: Strength of the L2 penalty on the weights of standardised embeddings; benchmarks/adaptation.py compares others.
PENALTY: Final = 10.0
_FOLDS: Final = 5
_STEPS, _SMALLEST_STEP = 50, 1e-6


class Adaptation(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an adaptation.

    Attributes:
        positives: Number of examples of the positive class.
        negatives: Number of examples of the negative class.
        references: Number of reference texts of the negative class.
        recall_before: Share of the positive examples that the original model classifies as positive.
        recall_after: Share of the positive examples that corrections fitted without them classify as positive (five-fold
            cross-fitting).
        flagged_before: Share of the references that the original model classifies as positive.
        flagged_after: Share of the references that cross-fitted corrections classify as positive, with the final bias.
    """

    positives: int
    negatives: int
    references: int
    recall_before: float
    recall_after: float
    flagged_before: float
    flagged_after: float

    def to_text(self) -> str:
        """Format for a terminal."""
        return (
            f"adapted to {self.positives} positive and {self.negatives} negative examples, with {self.references} references\n"
            f"recall on held-out examples: {100 * self.recall_before:.1f} % -> {100 * self.recall_after:.1f} %\n"
            f"references classified as positive: {100 * self.flagged_before:.2f} % -> {100 * self.flagged_after:.2f} %; on texts "
            "from another domain the rate may be far higher"
        )


def adapted(
    trained: TrainedModel, texts: Sequence[str], labels: Sequence[str], references: Sequence[str] | None
) -> tuple[TrainedModel, Adaptation]:
    """Adapt a model. See `reviewguard.Classifier.adapt`."""
    manifest, scorer = trained.manifest, trained.scorer
    scorer = scorer.inner if isinstance(scorer, AdaptedScorer) else scorer
    if not isinstance(scorer, CpuScorer):
        raise ConfigError("this model runs in torch, and adaptation requires an export: export() it, and load the export")
    if trained.positive is None:
        raise ConfigError(
            f"adaptation requires two classes, and the model has {len(manifest.classes)}; train() on more rows instead"
        )
    is_positive = np.array([label == manifest.positive for label in labels])
    if is_positive.sum() < 2:
        raise DataError(f"adaptation needs at least two examples of {manifest.positive!r}, got {is_positive.sum()}")
    if references is None and stored.FILE not in trained.files:
        raise DataError(
            "this export contains no reference texts, because it was written without validation rows; pass references=, at least "
            f"{LEAST} negative texts that the model was not trained on"
        )
    embedded = stored.from_file(trained.read(stored.FILE)) if references is None else embed(trained, scorer, references)
    if len(embedded.odds) < LEAST:
        raise DataError(f"adaptation needs at least {LEAST} reference texts, got {len(embedded.odds)}; pass more as references=")
    correction, report = fit(embed(trained, scorer, texts), is_positive, embedded, manifest.decision)
    # The stored validation logits are those of the model before adaptation.
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
        examples: Examples of both classes, or of the positive class only; at least two positive ones.
        is_positive: Whether each example is positive, bool (n,).
        references: Texts of the negative class.
        decision: Decision settings that contain the thresholds.
        penalty: Strength of the L2 penalty on the weights of standardised embeddings.
    """
    n = len(examples.odds)
    both = examples.and_then(references)
    y = np.concatenate([is_positive, np.zeros(len(references.odds), dtype=bool)])
    before = _margins(both, both.odds, decision)
    # Scores of the texts that a correction was fitted to are optimistic, so the bias is set on cross-fitted scores.
    after = np.empty(len(y))
    folds = _stratified_folds(y, min(_FOLDS, int(y.sum())))
    for fold in range(int(folds.max()) + 1):
        is_out = folds == fold
        held_out = both.rows(is_out)
        correction = _regress(both.rows(~is_out), y[~is_out], penalty)
        after[is_out] = _margins(held_out, held_out.odds + correction.of(held_out.embeddings), decision)
    flagged = int((before[n:] >= 0).sum())
    bias = -np.nextafter(np.sort(after[n:])[::-1][flagged], np.inf) if flagged < len(references.odds) else 0.0
    final = _regress(both, y, penalty)
    report = Adaptation(
        positives=int(is_positive.sum()),
        negatives=int((~is_positive).sum()),
        references=len(references.odds),
        recall_before=float((before[y] >= 0).mean()),
        recall_after=float((after[y] + bias >= 0).mean()),
        flagged_before=flagged / len(references.odds),
        flagged_after=float((after[n:] + bias >= 0).mean()),
    )
    return Correction(final.weight, float(final.bias + bias)), report


def _margins(texts: Embedded, odds: NDArray[np.float64], decision: Decision) -> NDArray[np.float64]:
    """Log-odds minus each text's threshold, float64 (n,)."""
    return odds if decision.operating_point is None else odds - decision.operating_point.thresholds(texts.words)


def _stratified_folds(y: NDArray[np.bool_], folds: int) -> NDArray[np.int64]:
    """The fold of each row, int64 (n,), stratified by class."""
    fold_of = np.empty(len(y), dtype=np.int64)
    for rows in (y, ~y):
        fold_of[rows] = np.arange(rows.sum()) % folds
    return fold_of


def _regress(texts: Embedded, y: NDArray[np.bool_], penalty: float) -> Correction:
    """Logistic regression with an offset, by Newton's method with step halving."""
    mean, spread = texts.embeddings.mean(axis=0), texts.embeddings.std(axis=0) + 1e-6
    x = np.hstack([(texts.embeddings - mean) / spread, np.ones((len(y), 1))]).astype(np.float64)
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-3  # small penalty on the bias, so that it stays finite if the classes are separable

    def loss(theta: NDArray[np.float64]) -> float:
        z = texts.odds + x @ theta
        return float((np.logaddexp(0, z) - y * z).sum() + (ridge * theta * theta).sum() / 2)

    theta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh((texts.odds + x @ theta) / 2))
        gradient = x.T @ (p - y) + ridge * theta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge), gradient)
        current, size = loss(theta), 1.0
        while size > _SMALLEST_STEP and loss(theta - size * step) > current:
            size /= 2
        theta = theta - size * step
        if float(np.abs(size * step).max()) < _SMALLEST_STEP:
            break
    weight = theta[:-1] / spread
    return Correction(weight.astype(np.float32), float(theta[-1] - mean @ weight))
