"""scikit-learn's metrics with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import requires

with requires("train"):
    from sklearn.metrics import (
        average_precision_score,
        confusion_matrix,
        precision_recall_fscore_support,
        roc_auc_score,
    )

_CONFUSION_DRAWS: Final = 10_000
_RANKING_DRAWS: Final = 500
_BLOCK_WEIGHTS: Final = 2_000_000  # row weights in memory at once: 16 MB


class ClassScores(msgspec.Struct, frozen=True, kw_only=True):
    """Precision, recall and F1 of one class against the rest, and its number of rows."""

    precision: float
    recall: float
    f1: float
    rows: int


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of predictions.

    Attributes:
        metrics: Metrics by name. With two classes, f1, precision, recall, specificity, false_positive_rate, roc_auc and pr_auc
            are those of the positive class. With more, they are macro averages, without specificity and false_positive_rate.
        confusion: Confusion matrix. Rows are true classes and columns predicted classes, in the order of the model's classes.
        per_class: Scores by class.
    """

    metrics: dict[str, Estimate]
    confusion: list[list[int]]
    per_class: dict[str, ClassScores]


def measure(
    y: NDArray[np.int64], scores: NDArray[np.floating], classes: Sequence[str], positive: str | None, seed: int = 0
) -> Scores:
    """Compute the metrics of predictions.

    Intervals are percentiles of the bootstrap over rows (Efron 1979). For metrics of the confusion matrix, the matrix is
    resampled from its multinomial distribution, which is equivalent to resampling rows; for AUCs, row weights are resampled.

    Args:
        y: True class indices, int64 (n,).
        scores: Score of each class, (n, classes); the class with the largest score is the prediction.
        classes: Class names, in the order of the columns.
        positive: Positive class of binary metrics. None: macro averages.
        seed: Random seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    indices = np.arange(len(classes))
    predicted = scores.argmax(axis=1)
    confusion = np.asarray(confusion_matrix(y, predicted, labels=indices), dtype=np.int64)
    target = None if positive is None else list(classes).index(positive)
    metrics = _with_intervals(confusion, target, rng)

    if target is None:
        truth, columns = (y[:, None] == indices).astype(int), np.asarray(scores)
    else:
        # In float64, so that probabilities close to 1 remain distinguishable.
        exact = np.asarray(scores, dtype=np.float64)
        truth, columns = (y == target).astype(int), exact[:, target] - np.delete(exact, target, axis=1).max(axis=1)
    if len(np.unique(y)) < len(classes):
        metrics |= dict.fromkeys(("roc_auc", "pr_auc"), Estimate(None, None, None))
    else:
        pairs = list(zip(np.atleast_2d(truth.T), np.atleast_2d(columns.T), strict=True))
        blocks = []
        for size in np.diff(np.linspace(0, _RANKING_DRAWS, 2 + len(y) * _RANKING_DRAWS // _BLOCK_WEIGHTS, dtype=int)):
            weights = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=size)
            blocks.append(np.mean([_areas(target_column, column, weights) for target_column, column in pairs], axis=0))
        resampled_areas = np.concatenate(blocks, axis=1)
        metrics["roc_auc"] = _estimate(float(roc_auc_score(truth, columns)), resampled_areas[0])
        metrics["pr_auc"] = _estimate(float(average_precision_score(truth, columns)), resampled_areas[1])

    precision, recall, f1, rows = precision_recall_fscore_support(y, predicted, labels=indices, zero_division=0.0)
    per_class = {
        name: ClassScores(precision=float(precision[i]), recall=float(recall[i]), f1=float(f1[i]), rows=int(rows[i]))
        for i, name in enumerate(classes)
    }
    return Scores(metrics=metrics, confusion=confusion.tolist(), per_class=per_class)


def accuracy(y: NDArray[np.int64], scores: NDArray[np.floating], seed: int = 0) -> Estimate:
    """Accuracy as in `measure`, without the cost of the other metrics.

    Args:
        y: True class indices, int64 (n,).
        scores: As for `measure`.
        seed: As for `measure`.
    """
    confusion = np.asarray(confusion_matrix(y, scores.argmax(axis=1), labels=np.arange(scores.shape[1])), dtype=np.int64)
    return _with_intervals(confusion, None, np.random.default_rng(seed))["accuracy"]


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """A bin of rows with similar confidence: mean confidence, accuracy, and number of rows."""

    confidence: float
    accuracy: float
    rows: int


def reliability(y: NDArray[np.int64], probabilities: NDArray[np.floating], bins: int = 15) -> list[Bin]:
    """Confidence and accuracy of the most probable class in equal-width bins of confidence. Empty bins are omitted.

    Args:
        y: True class indices, int64 (n,).
        probabilities: Probabilities, (n, classes).
        bins: Number of bins.
    """
    confidence, correct = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == y
    of_bin = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    rows, confidences, hits = (np.bincount(of_bin, weights=weights, minlength=bins) for weights in (None, confidence, correct))
    occupied = np.flatnonzero(rows)
    return [
        Bin(confidence=float(confidences[i] / rows[i]), accuracy=float(hits[i] / rows[i]), rows=int(rows[i])) for i in occupied
    ]


def calibration_error(y: NDArray[np.int64], probabilities: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error of the predicted class, 0 to 1 (Guo et al. 2017, arXiv:1706.04599), with equal-width bins.

    Args:
        y: True class indices, int64 (n,).
        probabilities: Probabilities, (n, classes).
        bins: Number of bins.
    """
    return sum(bin_.rows * abs(bin_.accuracy - bin_.confidence) for bin_ in reliability(y, probabilities, bins)) / len(y)


def _with_intervals(confusion: NDArray[np.int64], target: int | None, rng: np.random.Generator) -> dict[str, Estimate]:
    total = confusion.sum()
    draws = rng.multinomial(total, confusion.ravel() / total, size=_CONFUSION_DRAWS)
    resampled = _of_confusion(draws.reshape(-1, *confusion.shape), target)
    return {name: _estimate(float(value[0]), resampled[name]) for name, value in _of_confusion(confusion[None], target).items()}


def _estimate(value: float, draws: NDArray[np.floating]) -> Estimate:
    if np.isnan(draws).all():
        return Estimate(value, None, None)
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Estimate(value, float(low), float(high))


def _areas(truth: NDArray[np.int64], scores: NDArray[np.floating], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """ROC AUC and average precision under each row of weights, float64 (2, draws); NaN if a draw lacks a class.

    The result equals that of scikit-learn's two functions with `sample_weight`, for all draws in one pass.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # rows with equal scores form one step
    weighted = weights[:, order].astype(float)
    hits = np.add.reduceat(weighted * truth[order], starts, axis=1)
    misses = np.add.reduceat(weighted * (1 - truth[order]), starts, axis=1)
    all_hits, all_misses = hits.cumsum(axis=1), misses.cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        roc = (hits * (all_misses[:, -1:] - all_misses + misses / 2)).sum(axis=1) / (all_hits[:, -1] * all_misses[:, -1])
        precision = np.nan_to_num(all_hits / (all_hits + all_misses))  # steps before the first drawn row have zero weight
        average = (hits * precision).sum(axis=1) / all_hits[:, -1]
    return np.stack([roc, average])


def _of_confusion(matrices: NDArray[np.int64], target: int | None) -> dict[str, NDArray[np.float64]]:
    """Metrics of confusion matrices (draws, classes, classes). A ratio with denominator 0 is 0, as in scikit-learn."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(float)
    actual, predicted, total = matrices.sum(axis=2), matrices.sum(axis=1), matrices.sum(axis=(1, 2))
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, actual), _ratio(2 * hits, actual + predicted)
    accuracy = _ratio(hits.sum(axis=1), total)
    if target is None:
        return {
            "f1": f1.mean(axis=1),
            "accuracy": accuracy,
            "precision": precision.mean(axis=1),
            "recall": recall.mean(axis=1),
        }
    negatives = total - actual[:, target]
    false_positives = predicted[:, target] - hits[:, target]
    return {
        "f1": f1[:, target],
        "accuracy": accuracy,
        "precision": precision[:, target],
        "recall": recall[:, target],
        "specificity": _ratio(negatives - false_positives, negatives),
        "false_positive_rate": _ratio(false_positives, negatives),
    }


def _ratio(part: NDArray[np.floating], whole: NDArray[np.integer]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return ratio
