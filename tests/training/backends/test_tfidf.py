"""Fitting of the TF-IDF classifier; the contract of all backends is in test_contract.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from reviewguard import Classifier
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError
from reviewguard.models.tfidf import scores
from reviewguard.training.backends import Labelled
from reviewguard.training.backends.tfidf import Config, fit


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_equal_those_of_a_scikit_learn_pipeline(sample: Path, classes: int) -> None:
    reviews = read(sample)
    texts, y = reviews.texts, np.array([label == "real" for label in reviews.labels], dtype=np.int64)
    if classes == 3:
        y = np.where(np.array(reviews.columns["category"]) == "kitchen", 2, y)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(2, 5), lowercase=False, sublinear_tf=True, max_features=100_000)
    plain = make_pipeline(vectorizer, LinearSVC(random_state=42)).fit(texts[:240], y[:240])
    fitted = fit(Labelled(texts[:240], y[:240]), classes, Config(backend="tfidf"))
    values = scores(fitted, texts[240:])
    assert values.shape == (80, classes)
    expected = plain.decision_function(texts[240:])
    np.testing.assert_allclose(values[:, 1] if classes == 2 else values, expected, atol=1e-5)
    assert values.argmax(axis=1).tolist() == plain.predict(texts[240:]).tolist()
    assert (values.argmax(axis=1) == y[240:]).mean() > 0.7
    if classes == 2:
        np.testing.assert_array_equal(values[:, 0], -values[:, 1])


def test_case_is_significant() -> None:
    classifier = Classifier("tfidf").fit(["GOOD kettle", "good kettle"] * 3, ["loud", "quiet"] * 3)
    assert classifier.predict(["GOOD strap", "good strap"]).tolist() == ["loud", "quiet"]


def test_a_lone_surrogate_in_a_training_text_can_be_saved(tmp_path: Path) -> None:
    """JSON input may contain one."""
    texts = [NORMALIZERS["none"](text) for text in ["good kettle", "bad kettle", "good \ud800", "bad \ud800"]]
    classifier = Classifier("tfidf").fit(texts, ["real", "fake"] * 2)
    classifier.save(tmp_path / "saved")
    again = Classifier.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(texts), classifier.predict_proba(texts))


def test_characters_after_the_maximum_length_do_not_count() -> None:
    texts, labels = ["first same", "other same"] * 2, ["a", "b"] * 2
    short = Classifier("tfidf", max_length=8).fit([text[:8] for text in texts], labels)
    whole = Classifier("tfidf", max_length=8).fit(texts, labels)
    np.testing.assert_array_equal(short.predict_proba(texts), whole.predict_proba(texts))


def test_invalid_use(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training text has 2 characters"):
        Classifier("tfidf").fit(["a", "b"], ["x", "y"])
    with pytest.raises(ConfigError, match="tfidf has no checkpoints"):
        Classifier("tfidf").train(sample, run_dir=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="encoder is not an option"):
        Classifier("tfidf", encoder__max_length=32).fit(["a kettle", "the pan"], ["x", "y"])
