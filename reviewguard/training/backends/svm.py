"""A support vector machine with an RBF kernel on embeddings, with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.svm import SVC

from reviewguard.config import EncoderRecipe
from reviewguard.errors import DataError
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.models.heads import RbfHead
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._embed import Vectors, load, logits, tensor, train_head
from reviewguard.training.finetuning.batches import row_weights
from reviewguard.training.finetuning.checkpoint import Run

__all__ = ["Config", "fit_head", "load", "logits", "train"]

#: Minimum slope, for held-out folds no better than chance: nearly even odds, with the labels that the SVM predicts.
_LEAST_SLOPE: Final = 0.1


class Config(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the support vector machine.

    Attributes:
        C: Penalty of margin violations; the study uses 1.
        gamma: Kernel width; "scale" means 1 / (width * variance of the embeddings).
        class_weight: "balanced" weights rows inversely to the frequency of their class, in the SVM and in its calibration; "none"
            weights all rows equally.
        calibration_folds: Number of cross-validation folds that the sigmoid is fitted on.
    """

    C: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    gamma: Annotated[float, msgspec.Meta(gt=0)] | Literal["scale"] = "scale"
    class_weight: Literal["balanced", "none"] = "balanced"
    calibration_folds: Annotated[int, msgspec.Meta(ge=2)] = 5


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fit scikit-learn's SVC (once per class if there are more than two) and the slope of its sigmoid."""
    return train_head(lambda vectors, _: fit_head(vectors, classes, config), train, validation, encoder, run)


def fit_head(train: Vectors, classes: Sequence[str], config: Config) -> RbfHead:
    """Fit on embeddings, float32 (n, width).

    Three or more classes are fitted one-vs-rest, which keeps the probability a smooth function of the embedding. The label
    follows the decision function: its sign for two classes, its largest value for more. The sigmoid therefore passes through 0.5
    where the decision function is 0, and the SVMs share one slope. An offset as in Platt (1999) would move the decision boundary,
    by a large amount if there are few rows.

    Raises:
        DataError: If a class has fewer rows than there are calibration folds.
    """
    x, y, weight = train
    sizes = np.bincount(y, minlength=len(classes))
    smallest = int(sizes.min())
    if smallest < config.calibration_folds:
        raise DataError(
            f"the rarest class, {classes[int(sizes.argmin())]!r}, has {smallest} training row(s), and calibration needs one for "
            f"each of its {config.calibration_folds} folds; add rows, or lower calibration_folds (at least 2)"
        )
    targets = [y] if len(classes) == 2 else [(y == index).astype(np.int64) for index in range(len(classes))]
    weights = [row_weights(target, weight, config.class_weight) for target in targets]
    svms = [_svc(config).fit(x, target, weight) for target, weight in zip(targets, weights, strict=True)]
    used = np.unique(np.concatenate([svm.support_ for svm in svms]))
    dual = np.zeros((len(svms), len(used)))
    for row, svm in enumerate(svms):
        dual[row, np.searchsorted(used, svm.support_)] = svm.dual_coef_[0]
    return RbfHead(
        support=tensor(x[used]),
        dual=tensor(dual),
        intercept=tensor(np.array([svm.intercept_[0] for svm in svms])),
        gamma=tensor(svms[0]._gamma),
        a=tensor(np.full(len(svms), -_slope(x, targets, weights, config))),
        b=tensor(np.zeros(len(svms))),
    )


def _svc(config: Config) -> SVC:
    return SVC(C=config.C, gamma=config.gamma, cache_size=1000)


def _slope(x: NDArray[np.float32], targets: list[NDArray[np.int64]], weights: list[NDArray[np.float64]], config: Config) -> float:
    """Log-odds per unit of the decision function, fitted on its values on held-out folds."""
    values, rates = [], []
    for target, weight in zip(targets, weights, strict=True):
        # libsvm releases the GIL while it fits, so threads can share the embeddings instead of copying them.
        with parallel_config(backend="threading"):
            folds = StratifiedKFold(config.calibration_folds)
            fitted_on = {"sample_weight": weight}
            values.append(
                cross_val_predict(_svc(config), x, target, cv=folds, method="decision_function", n_jobs=-1, params=fitted_on)
            )
        # Platt's targets, slightly above 0 and below 1, keep the slope finite if the folds are separated without error.
        least = 1 / (np.bincount(target)[target] + 2)
        rates.append(np.where(target == 1, 1 - least, least))
    value, rate, weight = np.concatenate(values), np.concatenate(rates), np.concatenate(weights)
    fitted = LogisticRegression(C=1e10, fit_intercept=False).fit(
        np.tile(value, 2)[:, None],
        np.repeat([1, 0], len(value)),
        sample_weight=np.concatenate([weight * rate, weight * (1 - rate)]),
    )
    return max(float(fitted.coef_[0, 0]), _LEAST_SLOPE)
