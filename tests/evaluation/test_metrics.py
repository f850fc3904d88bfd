import numpy as np
import pytest
from sklearn import metrics as sk

from reviewguard.evaluation import metrics
from reviewguard.evaluation.metrics import Estimate, accuracy, measure

NAMES = ("fake", "real", "unsure")


def _data(classes: int, rows: int = 240, seed: int = 0, accuracy: float = 0.75):
    """Labels, and probabilities of a classifier with this accuracy."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    scores = rng.dirichlet(np.ones(classes), rows)
    wanted = np.where(rng.random(rows) < accuracy, y, (y + 1) % classes)
    best = scores.argmax(axis=1)
    row = np.arange(rows)
    scores[row, best], scores[row, wanted] = scores[row, wanted].copy(), scores[row, best].copy()
    return y, scores


def _values(scores) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in scores.metrics.items()}


@pytest.mark.parametrize("target", [0, 1])
def test_binary_metrics_equal_scikit_learns(target):
    y, scores = _data(2)
    truth, predicted = y == target, scores.argmax(axis=1) == target
    expected = {
        "f1": sk.f1_score(truth, predicted),
        "accuracy": sk.accuracy_score(truth, predicted),
        "precision": sk.precision_score(truth, predicted),
        "recall": sk.recall_score(truth, predicted),
        "specificity": sk.recall_score(~truth, ~predicted),
        "false_positive_rate": 1 - sk.recall_score(~truth, ~predicted),
        "roc_auc": sk.roc_auc_score(truth, scores[:, target]),
        "pr_auc": sk.average_precision_score(truth, scores[:, target]),
    }
    values = _values(measure(y, scores, NAMES[:2], NAMES[target]))
    assert values == pytest.approx(expected, rel=0, abs=1e-12)
    assert list(values) == list(expected)


def test_binary_scores_need_not_be_probabilities():
    y, scores = _data(2)
    margins = scores * 8 - 3 + np.random.default_rng(1).normal(size=scores.shape)
    values = _values(measure(y, margins, NAMES[:2], "real"))
    difference = margins[:, 1] - margins[:, 0]
    assert values["roc_auc"] == pytest.approx(sk.roc_auc_score(y, difference), rel=0, abs=1e-12)
    assert values["pr_auc"] == pytest.approx(sk.average_precision_score(y, difference), rel=0, abs=1e-12)
    assert values["f1"] == pytest.approx(sk.f1_score(y, difference > 0), rel=0, abs=1e-12)


def test_macro_metrics_equal_scikit_learns():
    y, scores = _data(3)
    predicted, truth = scores.argmax(axis=1), np.eye(3, dtype=int)[y]
    expected = {
        "f1": sk.f1_score(y, predicted, average="macro"),
        "accuracy": sk.accuracy_score(y, predicted),
        "precision": sk.precision_score(y, predicted, average="macro"),
        "recall": sk.recall_score(y, predicted, average="macro"),
        "roc_auc": sk.roc_auc_score(y, scores, multi_class="ovr", average="macro"),
        "pr_auc": sk.average_precision_score(truth, scores, average="macro"),
    }
    assert _values(measure(y, scores, NAMES, None)) == pytest.approx(expected, rel=0, abs=1e-12)


def test_a_class_that_is_never_predicted_counts_as_zero():
    y, scores = _data(3)
    scores[:, 2] = -1
    predicted = scores.argmax(axis=1)
    measured = measure(y, scores, NAMES, None)
    for name, function in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        expected = function(y, predicted, average="macro", zero_division=0.0)
        assert measured.metrics[name].value == pytest.approx(expected, rel=0, abs=1e-12)
    assert (measured.per_class["unsure"].precision, measured.per_class["unsure"].f1) == (0, 0)


@pytest.mark.parametrize(("classes", "positive"), [(2, "fake"), (3, None)])
def test_confusion_and_classes_equal_scikit_learns(classes, positive):
    y, scores = _data(classes)
    predicted = scores.argmax(axis=1)
    measured = measure(y, scores, NAMES[:classes], positive)
    assert measured.confusion == sk.confusion_matrix(y, predicted).tolist()
    report = sk.classification_report(y, predicted, target_names=NAMES[:classes], output_dict=True)
    assert list(measured.per_class) == list(NAMES[:classes])
    for name, class_scores in measured.per_class.items():
        expected = report[name]
        actual = {
            "precision": class_scores.precision,
            "recall": class_scores.recall,
            "f1-score": class_scores.f1,
            "support": class_scores.rows,
        }
        assert actual == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize(("classes", "positive"), [(2, "fake"), (2, "real"), (2, None), (3, None)])
@pytest.mark.parametrize(("rows", "accuracy"), [(20, 0.6), (20, 0.95), (240, 0.95)])
def test_intervals_contain_the_value(classes, positive, accuracy, rows):
    measured = measure(*_data(classes, rows, accuracy=accuracy), NAMES[:classes], positive)
    for name, estimate in measured.metrics.items():
        # Rounding can make a perfect area 1 - 2e-16.
        assert -1e-12 <= estimate.low - 1e-12 <= estimate.value <= estimate.high + 1e-12 <= 1 + 2e-12, name
        assert estimate.low < estimate.high or estimate.value == pytest.approx(round(estimate.value)), name


@pytest.mark.parametrize("positive", ["fake", None])
def test_perfect_predictions_have_intervals_of_width_zero(positive):
    y = np.arange(60) % 2
    measured = measure(y, np.eye(2)[y], NAMES[:2], positive)
    for name, estimate in measured.metrics.items():
        ideal = 0 if name == "false_positive_rate" else 1
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((ideal,) * 3, rel=0, abs=1e-12), name


def test_intervals_are_reproducible():
    data = _data(2)
    first, again, other = (measure(*data, NAMES[:2], "fake", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert _values(first) == _values(other)
    assert all(first.metrics[name] != other.metrics[name] for name in ("roc_auc", "pr_auc"))


@pytest.mark.parametrize(("classes", "positive"), [(2, "real"), (3, None)])
def test_intervals_equal_those_of_a_plain_bootstrap(classes, positive):
    # The plain bootstrap: draw rows, compute the metric, take percentiles.
    y, scores = _data(classes)
    measured = measure(y, scores, NAMES[:classes], positive)
    rng = np.random.default_rng(5)
    kind = {"average": "macro"} if positive is None else {"pos_label": 1}
    draws = {"f1": [], "roc_auc": [], "pr_auc": []}
    for _ in range(150):
        rows = rng.integers(len(y), size=len(y))
        labels, drawn = y[rows], scores[rows]
        predicted = drawn.argmax(axis=1)
        truth, column = (np.eye(classes, dtype=int)[labels], drawn) if positive is None else (labels, drawn[:, 1])
        draws["f1"].append(sk.f1_score(labels, predicted, **kind))
        draws["roc_auc"].append(sk.roc_auc_score(truth, column))
        draws["pr_auc"].append(sk.average_precision_score(truth, column))
    for name, values in draws.items():
        low, high = np.percentile(values, (2.5, 97.5))
        estimate = measured.metrics[name]
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.3 * (high - low)), name


def test_intervals_have_about_nominal_coverage():
    # A third class without rows makes the AUCs undefined, so they are not resampled.
    rng, accuracy, rows, covered = np.random.default_rng(0), 0.8, 150, 0
    for seed in range(200):
        y = rng.integers(2, size=rows)
        predicted = np.where(rng.random(rows) < accuracy, y, 1 - y)
        estimate = measure(y, np.eye(3)[predicted], NAMES, None, seed=seed).metrics["accuracy"]
        covered += estimate.low <= accuracy <= estimate.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("classes", "positive"), [(2, "fake"), (2, "real"), (3, None)])
def test_areas_are_undefined_without_rows_of_a_class(classes, positive):
    scores = np.random.default_rng(0).dirichlet(np.ones(classes), 30)
    measured = measure(np.zeros(30, dtype=np.int64), scores, NAMES[:classes], positive)
    for name in ("roc_auc", "pr_auc"):
        assert measured.metrics[name] == Estimate(None, None, None)
        assert str(measured.metrics[name]) == "undefined"
    assert measured.metrics["accuracy"].value == (scores.argmax(axis=1) == 0).mean()
    assert measured.per_class["real"].rows == 0


def test_two_rows_are_enough():
    measured = measure(np.array([0, 1]), np.eye(2), NAMES[:2], "fake")
    assert {name: value for name, value in _values(measured).items() if value != 1} == {"false_positive_rate": 0}


def test_estimate_as_text():
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.5000 [0.2500, 0.7500]"
    assert str(Estimate(0.5, None, None)) == "0.5000"


def test_weighted_areas_equal_scikit_learns():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=80)
    scores = rng.integers(12, size=80) / 4  # many ties
    weights = rng.multinomial(80, np.full(80, 1 / 80), size=20)
    weights[0] = truth  # a draw without one class
    areas = metrics._areas(truth, scores, weights)
    assert np.isnan(areas[0, 0])
    for draw in range(1, 20):
        for area, function in zip(areas[:, draw], (sk.roc_auc_score, sk.average_precision_score), strict=True):
            assert area == pytest.approx(function(truth, scores, sample_weight=weights[draw]), rel=0, abs=1e-12)


def test_accuracy_equals_that_of_measure() -> None:
    rng = np.random.default_rng(3)
    y, scores = rng.integers(0, 3, 90), rng.normal(size=(90, 3))
    assert accuracy(y, scores) == measure(y, scores, ["a", "b", "c"], None).metrics["accuracy"]
    assert accuracy(y % 2, scores[:, :2]) == measure(y % 2, scores[:, :2], ["a", "b"], "b").metrics["accuracy"]
