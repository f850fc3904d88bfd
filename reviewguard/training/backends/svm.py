"""A support vector machine with an RBF kernel on sentence vectors, with calibrated probabilities."""

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

from reviewguard.config import Recipe
from reviewguard.errors import DataError
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.models.heads import RbfHead
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._embed import Vectors, load, logits, tensor, train_head
from reviewguard.training.finetuning.batches import row_weights
from reviewguard.training.finetuning.checkpoint import Run

__all__ = ["Config", "fit_head", "load", "logits", "train"]

#: Where held-out folds come out no better than by chance: nearly even odds, and labels that still follow the machine.
_LEAST_SLOPE: Final = 0.1


class Config(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the support vector machine.

    Attributes:
        C: Penalty of a margin violation; the study's 1.
        gamma: Kernel width: "scale" is 1 / (width * variance of the vectors).
        class_weight: "balanced" weighs rows inversely to their class's frequency, in the machine and in its calibration;
            "none" weighs all alike.
        calibration_folds: Folds of the cross-validation that the sigmoid is fitted on.
    """

    C: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    gamma: Annotated[float, msgspec.Meta(gt=0)] | Literal["scale"] = "scale"
    class_weight: Literal["balanced", "none"] = "balanced"
    calibration_folds: Annotated[int, msgspec.Meta(ge=2)] = 5


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fit scikit-learn's SVC, once a class where there are more than two, and the slope of its probabilities."""
    return train_head(lambda vectors, _: fit_head(vectors, classes, config), train, validation, encoder, run)


def fit_head(train: Vectors, classes: Sequence[str], config: Config) -> RbfHead:
    """Fit on vectors float32 (n, width).

    Three classes or more are fitted one against the rest, which keeps the probability a smooth function of the vector. A label is
    that of the decision function: of two classes its sign, of more the largest. So the sigmoid passes through 0.5 where the
    decision function is 0, and the machines share one slope; Platt's own offset (1999) would move the border, far on few rows.

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
    machines = [_machine(config).fit(x, target, weight) for target, weight in zip(targets, weights, strict=True)]
    used = np.unique(np.concatenate([machine.support_ for machine in machines]))
    dual = np.zeros((len(machines), len(used)))
    for row, machine in enumerate(machines):
        dual[row, np.searchsorted(used, machine.support_)] = machine.dual_coef_[0]
    return RbfHead(
        support=tensor(x[used]),
        dual=tensor(dual),
        intercept=tensor(np.array([machine.intercept_[0] for machine in machines])),
        gamma=tensor(machines[0]._gamma),
        a=tensor(np.full(len(machines), -_slope(x, targets, weights, config))),
        b=tensor(np.zeros(len(machines))),
    )


def _machine(config: Config) -> SVC:
    return SVC(C=config.C, gamma=config.gamma, cache_size=1000)


def _slope(x: NDArray[np.float32], targets: list[NDArray[np.int64]], weights: list[NDArray[np.float64]], config: Config) -> float:
    """Log-odds for each unit of the decision function, fitted on its values on held-out folds."""
    values, rates = [], []
    for target, weight in zip(targets, weights, strict=True):
        # libsvm lets go of the interpreter lock while it fits, so threads share the vectors instead of copying them.
        with parallel_config(backend="threading"):
            folds = StratifiedKFold(config.calibration_folds)
            fitted_on = {"sample_weight": weight}
            values.append(
                cross_val_predict(_machine(config), x, target, cv=folds, method="decision_function", n_jobs=-1, params=fitted_on)
            )
        # Platt's targets, a little inside of 0 and 1, keep the slope finite where the folds are told apart without an error.
        least = 1 / (np.bincount(target)[target] + 2)
        rates.append(np.where(target == 1, 1 - least, least))
    value, rate, weight = np.concatenate(values), np.concatenate(rates), np.concatenate(weights)
    fitted = LogisticRegression(C=1e10, fit_intercept=False).fit(
        np.tile(value, 2)[:, None],
        np.repeat([1, 0], len(value)),
        sample_weight=np.concatenate([weight * rate, weight * (1 - rate)]),
    )
    return max(float(fitted.coef_[0, 0]), _LEAST_SLOPE)
