"""Torch heads against scikit-learn: identical labels, and probabilities equal to 1e-4."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from reviewguard.bundle.decision import Decision
from reviewguard.config import EncoderConfig
from reviewguard.errors import ConfigError, DataError
from reviewguard.models.heads import MlpHead
from reviewguard.models.text_model import run
from reviewguard.training.backends import logreg, mlp, svm
from reviewguard.training.backends._embed import Vectors

NAMES = ["a", "b", "c", "d", "e"]
COMMON = {"backend": "x", "encoder": EncoderConfig(repo="x")}


def vectors(classes: int, width: int = 64, rows: int = 600):
    x, y = make_classification(
        n_samples=rows,
        n_features=width,
        n_informative=12,
        n_classes=classes,
        weights=[0.6] + [0.4 / (classes - 1)] * (classes - 1),
        random_state=0,
    )
    return x.astype(np.float32), y.astype(np.int64)


def agree(head, reference, x) -> None:
    probabilities = Decision().probabilities(run(head, {"x": x}))
    expected = reference.predict_proba(x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert (probabilities.argmax(axis=1) == reference.predict(x)).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_logistic_regression(classes: int, class_weight: str) -> None:
    x, y = vectors(classes)
    config = logreg.Config(**COMMON, C=0.5, class_weight=class_weight)
    weight = "balanced" if class_weight == "balanced" else None
    agree(logreg.fit_head(Vectors(x, y), config), LogisticRegression(C=0.5, class_weight=weight, max_iter=2000).fit(x, y), x)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_support_vector_machine(classes: int, class_weight: str) -> None:
    """Labels follow scikit-learn's decision function, also on few rows; probabilities are a sigmoid of it."""
    x, y = vectors(classes, rows=1000)
    held_out, truth = x[600:], y[600:]
    weight = "balanced" if class_weight == "balanced" else None
    for rows in (40, 600):
        head = svm.fit_head(Vectors(x[:rows], y[:rows]), NAMES[:classes], svm.Config(**COMMON, C=2.0, class_weight=class_weight))
        reference = SVC(C=2.0, gamma="scale", class_weight=weight)
        reference = reference if classes == 2 else OneVsRestClassifier(reference)
        decisions = reference.fit(x[:rows], y[:rows]).decision_function(held_out)
        probabilities = Decision().probabilities(run(head, {"x": held_out}))
        assert (probabilities.argmax(axis=1) == reference.predict(held_out)).all()
        slope = -head.a[0].item()
        assert slope > 0
        sigmoid = 1 / (1 + np.exp(-slope * decisions))
        expected = np.stack([1 - sigmoid, sigmoid], axis=1) if classes == 2 else sigmoid / sigmoid.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    if class_weight == "none":
        platt = CalibratedClassifierCV(SVC(C=2.0), ensemble=False, cv=5).fit(x[:600], y[:600])
        losses = log_loss(truth, probabilities), log_loss(truth, platt.predict_proba(held_out))
        assert losses[0] < losses[1] + 0.02, "calibration is as good as with Platt's offset"


def test_svm_no_better_than_chance_has_moderate_probabilities() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(16, 8)).astype(np.float32), np.tile([0, 1], 8)
    for labels in (y, 1 - y, np.repeat([0, 1], 8)):
        head = svm.fit_head(Vectors(x, labels), NAMES[:2], svm.Config(**COMMON))
        probabilities = Decision().probabilities(run(head, {"x": x}))
        assert (probabilities.argmax(axis=1) == SVC().fit(x, labels).predict(x)).all()
        assert probabilities.max() < 0.9


def test_svm_at_the_width_of_a_real_encoder() -> None:
    """With 1,024 dimensions and a mean far from zero, expanding |x - s|^2 in float32 loses precision."""
    x, y = vectors(2, width=1024, rows=300)
    x += 3
    head = svm.fit_head(Vectors(x, y), NAMES[:2], svm.Config(**COMMON, class_weight="none"))
    logits = run(head, {"x": x})
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]) / -head.a[0].item(), SVC().fit(x, y).decision_function(x), atol=1e-3)


def test_perceptron_forward_matches_scikit_learn() -> None:
    x, y = vectors(3)
    fitted = MLPClassifier((32, 16), max_iter=5, random_state=0, early_stopping=False)
    with pytest.warns(match="Maximum iterations"):
        fitted.fit(x, y)
    pairs = zip(fitted.coefs_, fitted.intercepts_, strict=True)
    layers = [(torch.tensor(w.T, dtype=torch.float32).contiguous(), torch.tensor(b, dtype=torch.float32)) for w, b in pairs]
    agree(MlpHead(layers), fitted, x)


def test_perceptron_learns_reproducibly_and_keeps_its_best_epoch() -> None:
    from sklearn.metrics import f1_score

    x, y = vectors(2, rows=900)
    train, held_out = Vectors(x[:600], y[:600]), Vectors(x[600:], y[600:])
    config = mlp.Config(**COMMON, hidden=(32,), dropout=(0.1,), max_epochs=30, patience=3)
    before = torch.get_rng_state()
    first = mlp.fit_head(train, held_out, 2, config)
    assert torch.equal(torch.get_rng_state(), before), "training does not change the caller's random state"
    second = mlp.fit_head(train, held_out, 2, config)
    a, b = run(first, {"x": held_out[0]}), run(second, {"x": held_out[0]})
    np.testing.assert_array_equal(a, b)
    best = f1_score(held_out[1], a.argmax(axis=1), average="macro")
    assert best > 0.7
    shorter = [
        mlp.fit_head(train, held_out, 2, mlp.Config(**COMMON, hidden=(32,), dropout=(0.1,), max_epochs=n)) for n in (1, 2, 4)
    ]
    assert best >= max(f1_score(held_out[1], run(h, {"x": held_out[0]}).argmax(axis=1), average="macro") for h in shorter)


@pytest.mark.parametrize("backend", [logreg, svm, mlp], ids=lambda module: module.__name__.rsplit(".", 1)[1])
def test_balancing_raises_the_recall_of_a_rare_class(backend) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.06).astype(np.int64)
    x = rng.normal(size=(1500, 8)).astype(np.float32)
    x[:, 0] += 1.3 * y
    recall = {}
    for class_weight in ("balanced", "none"):
        config = backend.Config(**COMMON, class_weight=class_weight)
        if backend is logreg:
            head = logreg.fit_head(Vectors(x, y), config)
        elif backend is svm:
            head = svm.fit_head(Vectors(x, y), NAMES[:2], config)
        else:
            config = mlp.Config(**COMMON, class_weight=class_weight, hidden=(16,), dropout=(0.0,))
            head = mlp.fit_head(Vectors(x, y), None, 2, config)
        recall[class_weight] = (run(head, {"x": x}).argmax(axis=1)[y == 1] == 1).mean()
    assert recall["balanced"] > recall["none"] + 0.2


@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_row_weights_match_repeated_rows(class_weight: str) -> None:
    """As in scikit-learn."""
    x, y = vectors(3, rows=400)
    weight = np.random.default_rng(0).integers(1, 5, len(y))
    repeated = np.repeat(np.arange(len(y)), weight)
    config = logreg.Config(**COMMON, class_weight=class_weight)
    heads = [logreg.fit_head(rows, config) for rows in (Vectors(x, y, weight.astype(float)), Vectors(x[repeated], y[repeated]))]
    weighted, duplicated = (Decision().probabilities(run(head, {"x": x})) for head in heads)
    np.testing.assert_allclose(weighted, duplicated, atol=5e-3)
    # The slope depends on the folds, the decision function does not.
    config = svm.Config(**COMMON, class_weight=class_weight, gamma=0.02)
    heads = [
        svm.fit_head(rows, NAMES[:3], config) for rows in (Vectors(x, y, weight.astype(float)), Vectors(x[repeated], y[repeated]))
    ]
    weighted, duplicated = (run(head, {"x": x}) / head.a[0].item() for head in heads)
    np.testing.assert_allclose(weighted, duplicated, atol=0.05)


def test_too_few_rows_to_calibrate_or_stop_early() -> None:
    x, y = vectors(2, rows=40)
    few = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:3]])
    with pytest.raises(DataError, match="the rarest class, 'b', has 3 training row"):
        svm.fit_head(Vectors(x[few], y[few]), NAMES[:2], svm.Config(**COMMON))
    with pytest.raises(DataError, match="pass validation data"):
        mlp.fit_head(Vectors(x[:3], np.array([0, 1, 1])), None, 2, mlp.Config(**COMMON))
    with pytest.raises(ConfigError, match="3 layers and dropout 1"):
        mlp.fit_head(Vectors(x, y), None, 2, mlp.Config(**COMMON, dropout=(0.1,)))
