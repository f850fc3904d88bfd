"""A support vector machine with an RBF kernel on sentence vectors, with calibrated probabilities."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight

from reviewguard.backends import Labelled, Trained
from reviewguard.backends._embed import Vectors, load, logits, tensor, train_head
from reviewguard.config import Recipe
from reviewguard.errors import DataError
from reviewguard.nn.checkpoint import Run
from reviewguard.nn.encoder import LoadedEncoder
from reviewguard.nn.heads import RbfHead

__all__ = ["Config", "fit_head", "load", "logits", "train"]


class Config(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the support vector machine.

    Attributes:
        C: Penalty of a margin violation; the study's 1.
        gamma: Kernel width: "scale" is 1 / (width * variance of the vectors).
        class_weight: "balanced" weighs rows inversely to their class's frequency, in the machine and in its calibration;
            "none" weighs all alike.
        calibration_folds: Folds of the cross-validation that Platt's sigmoid is fitted on.
    """

    C: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    gamma: Annotated[float, msgspec.Meta(gt=0)] | Literal["scale"] = "scale"
    class_weight: Literal["balanced", "none"] = "balanced"
    calibration_folds: Annotated[int, msgspec.Meta(ge=2)] = 5


def train(
    train: Labelled, validation: Labelled | None, *, classes: int, encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fit scikit-learn's SVC under CalibratedClassifierCV, once a class where there are more than two."""
    return train_head(lambda vectors, _: fit_head(vectors, classes, config), train, validation, encoder, run)


def fit_head(train: Vectors, classes: int, config: Config) -> RbfHead:
    """Fit on vectors float32 (n, width).

    Three classes or more are fitted one against the rest, which keeps the probability a smooth function of the vector;
    it equals OneVsRestClassifier over the same calibrated machine.

    Raises:
        DataError: If a class has fewer rows than there are calibration folds.
    """
    x, y = train
    smallest = int(np.bincount(y, minlength=classes).min())
    if smallest < config.calibration_folds:
        raise DataError(
            f"the rarest class has {smallest} training row(s), and calibration needs one for each of its "
            f"{config.calibration_folds} folds; add rows or lower calibration_folds"
        )
    targets = [y] if classes == 2 else [(y == index).astype(np.int64) for index in range(classes)]
    fitted = [_fit_one(x, target, config) for target in targets]
    machines = [one.estimator for one in fitted]
    used = np.unique(np.concatenate([machine.support_ for machine in machines]))
    dual = np.zeros((len(machines), len(used)))
    for row, machine in enumerate(machines):
        dual[row, np.searchsorted(used, machine.support_)] = machine.dual_coef_[0]
    return RbfHead(
        support=tensor(x[used]),
        dual=tensor(dual),
        intercept=tensor(np.array([machine.intercept_[0] for machine in machines])),
        gamma=tensor(machines[0]._gamma),
        a=tensor(np.array([one.calibrators[0].a_ for one in fitted])),
        b=tensor(np.array([one.calibrators[0].b_ for one in fitted])),
    )


def _fit_one(x: NDArray[np.float32], y: NDArray[np.int64], config: Config) -> Any:  # a private type of scikit-learn
    # Weights go to both the machine and the sigmoid: a sigmoid fitted on unweighted rows would undo the balancing.
    weights = compute_sample_weight("balanced", y) if config.class_weight == "balanced" else None
    machine = SVC(C=config.C, gamma=config.gamma, cache_size=1000)
    # libsvm lets go of the interpreter lock while it fits, so threads share the vectors instead of copying them.
    with parallel_config(backend="threading"):
        calibrated = CalibratedClassifierCV(machine, ensemble=False, cv=config.calibration_folds, n_jobs=-1)
        return calibrated.fit(x, y, sample_weight=weights).calibrated_classifiers_[0]
