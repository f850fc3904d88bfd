"""scikit-learn compatibility: its estimator checks for texts, and its meta-estimators compared with a plain pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TunedThresholdClassifierCV, cross_val_predict, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from reviewguard import Classifier
from reviewguard.errors import DataError

#: The scikit-learn checks without numeric X. Others fit numeric arrays, which a text classifier refuses.
#: `check_do_not_raise_errors_in_init_or_set_param` does not hold, because `set_params` validates settings immediately.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_set_params",
    "check_valid_tag_types",
)
WORDS = ("kettle", "pan", "book", "dog", "lamp", "hose", "chair", "phone", "cable", "shirt", "knife", "piano")
#: Maps a class index to its label; the order differs from that of the labels as strings.
LABELS: dict[str, Callable[[int], Any]] = {
    "int": lambda index: index,
    "negative": lambda index: index - 5,
    "bool": bool,
    "float": lambda index: index + 0.5,
    "str": lambda index: f"no {index}",
}


def rows(classes: int, kind: str, each: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Texts that contain a word of their class, and labels."""
    indices = np.tile(np.arange(classes), each)
    texts = [f"a {WORDS[index]} of mine, number {row}, and a fine {WORDS[index]} it is" for row, index in enumerate(indices)]
    return np.array(texts, dtype=object), np.array([LABELS[kind](int(index)) for index in indices])


@pytest.fixture(scope="module")
def ours(tiny_settings: dict[str, object]) -> Classifier:
    return Classifier("minilm-logreg", **tiny_settings, C=100.0)


@pytest.fixture(scope="module")
def theirs() -> BaseEstimator:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=100.0))


@pytest.mark.filterwarnings("ignore:.*recommended to delay parameter validation:UserWarning")
@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_estimator_checks(ours: Classifier, name: str) -> None:
    getattr(estimator_checks, name)("Classifier", ours)


@pytest.mark.parametrize(("classes", "kind"), [(2, "bool"), (2, "float"), (3, "negative"), (12, "int"), (12, "str")])
def test_labels_keep_their_type_and_order(ours: Classifier, tmp_path, classes: int, kind: str) -> None:
    X, y = rows(classes, kind)
    ours.fit(X, y)
    saved = tmp_path / "saved"
    ours.save(saved)
    ours.export(tmp_path / "export")
    strings = [str(label) for label in np.unique(y).tolist()]
    for model in (ours, Classifier.from_pretrained(saved), Classifier.from_pretrained(tmp_path / "export")):
        assert model.classes_.tolist() == np.unique(y).tolist()
        assert model.classes_.dtype == np.unique(y).dtype
        called = model.predict(X)
        assert called.dtype == y.dtype
        assert (called == y).all()
        assert (model.classes_[model.predict_proba(X).argmax(axis=1)] == y).all()
        assert model.score(X, y) == 1.0
        assert model.manifest.classes == strings
        assert {one.label for one in model.stream(X)} == set(strings)


@pytest.mark.parametrize(("classes", "kind"), [(2, "int"), (2, "str"), (3, "str"), (12, "int"), (12, "str")])
def test_meta_estimators_match_those_of_a_pipeline(ours: Classifier, theirs: BaseEstimator, classes: int, kind: str) -> None:
    X, y = rows(classes, kind)
    held_out, truth = rows(classes, kind, each=2)

    def meta(one: BaseEstimator) -> dict[str, BaseEstimator]:
        found = {
            "hard votes": VotingClassifier([("a", one), ("b", one)], voting="hard"),
            "soft votes": VotingClassifier([("a", one), ("b", one)], voting="soft"),
            "stacking": StackingClassifier([("a", one)], LogisticRegression(C=100.0), cv=2),
            "calibration": CalibratedClassifierCV(one, cv=2, ensemble=False),
            "one against the rest": OneVsRestClassifier(one),
        }
        if classes == 2:
            found["threshold"] = TunedThresholdClassifierCV(one, scoring="accuracy", cv=2)
        return found

    for (name, own), other in zip(meta(ours).items(), meta(theirs).values(), strict=True):
        expected = other.fit(X, y)
        found = own.fit(X, y)
        assert found.classes_.tolist() == expected.classes_.tolist(), name
        assert found.predict(held_out).dtype == expected.predict(held_out).dtype, name
        accuracies = found.score(held_out, truth), expected.score(held_out, truth)
        assert accuracies == (1.0, 1.0), name
        if name != "hard votes":
            shares = found.predict_proba(held_out)
            assert shares.shape == expected.predict_proba(held_out).shape, name
            assert (found.classes_[shares.argmax(axis=1)] == truth).all(), name

    probabilities = cross_val_predict(ours, X, y, cv=2, method="predict_proba")
    assert (np.unique(y)[probabilities.argmax(axis=1)] == y).all()
    scores = cross_validate(ours, X, y, cv=2, scoring=["accuracy", "f1_macro", "neg_log_loss"], error_score="raise")
    assert scores["test_accuracy"].tolist() == scores["test_f1_macro"].tolist() == [1.0, 1.0]


def test_joblib_processes(ours: Classifier) -> None:
    X, y = rows(3, "int")
    scores = cross_validate(ours, X, y, cv=2, n_jobs=2, error_score="raise")
    assert scores["test_score"].tolist() == [1.0, 1.0]


def test_the_text_column_of_a_table_is_used(ours: Classifier) -> None:
    X, y = rows(2, "str")
    frame = pd.DataFrame({"id": range(len(X)), "text": X})
    ours.fit(frame, pd.DataFrame({"label": y}))
    assert (ours.predict(frame) == y).all()
    assert ours.score(frame, y) == 1.0
    with pytest.raises(DataError, match="no column of the DataFrame looks like the text: it has 'id', 'words'"):
        ours.predict(frame.rename(columns={"text": "words"}))
    with pytest.raises(DataError, match="labels have the columns 'id', 'text'; pass one column"):
        ours.fit(X, frame)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"sample_weight has shape \(1,\), but there are 4 rows"),
        ([1, 1, 1, float("nan")], r"sample_weight\[3\] is nan; weights must be finite and not negative"),
        ([1, -1, 1, 1], r"sample_weight\[1\] is -1.0"),
        ([0, 1, 0, 1], "sample_weight is 0 in every row of the class 'a'"),
        (["x"] * 4, "sample_weight must hold one number per row; could not convert string to float"),
    ],
)
def test_invalid_weights_are_refused(ours: Classifier, weights: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ours.fit(["a kettle", "a pan", "kettles", "pans"], ["a", "b"] * 2, weights)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a ", "b"], "1 labels have leading or trailing white space, which fit does not remove; strip them"),
        (["needs_review", "b"], "a class is named 'needs_review', which is the name of a decision; rename the label"),
        (["not_flagged", "b"], "a class is named 'not_flagged'"),
        ([1, "b"], "labels mix types: int and str"),
        ([["a"], ["b", "a"]], "multi-label data is not supported"),
    ],
)
def test_invalid_labels_are_refused(ours: Classifier, labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ours.fit(["a kettle", "a pan"], labels)
