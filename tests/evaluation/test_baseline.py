import json

import numpy as np
import pytest
import safetensors.numpy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError
from reviewguard.evaluation.baseline import FILES, TERMS_FILE, WEIGHTS_FILE, Baseline

TEXTS = ["good kettle, boils fast", "bad kettle, it leaks", "good strap", "bad strap broke", "good GOOD", "bad, so bad"]


@pytest.fixture(scope="module")
def rows(sample):
    """Texts of the sample with labels of two and of three classes."""
    reviews = read(sample)
    two = np.array([label == "real" for label in reviews.labels], dtype=np.int64)
    three = np.where(np.array(reviews.columns["category"]) == "kitchen", 2, two)
    return reviews.texts, {2: two, 3: three}


@pytest.fixture(scope="module")
def baselines(rows):
    texts, y = rows
    return {classes: Baseline.fit(texts[:240], y[classes][:240], classes, seed=0) for classes in (2, 3)}


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_equal_those_of_a_scikit_learn_pipeline(rows, baselines, classes):
    texts, y = rows
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(2, 5), lowercase=False, sublinear_tf=True, max_features=100_000)
    plain = make_pipeline(vectorizer, LinearSVC(random_state=0)).fit(texts[:240], y[classes][:240])
    scores = baselines[classes].scores(texts[240:])
    assert scores.dtype == np.float64
    assert scores.shape == (80, classes)
    expected = plain.decision_function(texts[240:])
    np.testing.assert_allclose(scores[:, 1] if classes == 2 else scores, expected, atol=1e-5)
    assert scores.argmax(axis=1).tolist() == plain.predict(texts[240:]).tolist()
    if classes == 2:
        np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])


def test_the_baseline_learns(rows, baselines):
    texts, y = rows
    assert (baselines[2].scores(texts[240:]).argmax(axis=1) == y[2][240:]).mean() > 0.8


def test_the_baseline_is_case_sensitive():
    y = np.array([0, 1] * 3)
    baseline = Baseline.fit(["GOOD kettle", "good kettle"] * 3, y, 2, seed=0)
    assert baseline.scores(["GOOD strap", "good strap"]).argmax(axis=1).tolist() == [0, 1]


def test_any_text_has_a_score(baselines):
    scores = baselines[2].scores(["", "x", "\u4e2d\u6587", "\ud800"])
    assert scores.shape == (4, 2)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0], scores[1])


@pytest.mark.parametrize("classes", [2, 3])
def test_files_round_trip(rows, baselines, classes):
    files = baselines[classes].to_files()
    assert set(files) == set(FILES)
    again = Baseline.from_files({**files, "other": b""})
    np.testing.assert_array_equal(again.scores(rows[0]), baselines[classes].scores(rows[0]))
    assert again.to_files() == files


def test_texts_with_a_lone_surrogate_can_be_saved():
    # JSON input may contain one, and all earlier steps accept it.
    texts = list(map(NORMALIZERS["none"], [*TEXTS[:-1], "bad \ud800 bad"]))
    baseline = Baseline.fit(texts, np.array([0, 1] * 3), 2, seed=0)
    again = Baseline.from_files(baseline.to_files())
    np.testing.assert_array_equal(again.scores(TEXTS), baseline.scores(TEXTS))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return Baseline.fit(TEXTS, np.array([0, 1] * 3), 2, seed=0).to_files()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (TERMS_FILE, b""),
        (TERMS_FILE, b"{}"),
        (TERMS_FILE, b"[1, 2]"),
        (TERMS_FILE, b'["\xff"]'),
        (TERMS_FILE, b"[" * 100_000),
        (TERMS_FILE, b"[]"),
        (TERMS_FILE, b'["only one"]'),
        (TERMS_FILE, None),
        (WEIGHTS_FILE, b""),
        (WEIGHTS_FILE, b"\xff" * 64),
        (WEIGHTS_FILE, None),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_malformed_files(files, name, content):
    changed = {**files, name: content}
    with pytest.raises(BundleError, match="baseline's files are malformed"):
        Baseline.from_files({key: value for key, value in changed.items() if value is not None})


def test_repeated_terms_are_refused(files):
    terms = json.loads(files[TERMS_FILE])
    with pytest.raises(BundleError, match="malformed"):
        Baseline.from_files({**files, TERMS_FILE: json.dumps([terms[0], *terms[:-1]]).encode()})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("idf", lambda values: values[:-1]),
        ("idf", lambda values: values[:, None]),
        ("weight", lambda values: values[:, :-1]),
        ("weight", lambda values: values[0]),
        ("bias", lambda values: values[:1]),
        ("bias", lambda values: np.append(values, values[:1])),
        ("bias", None),
        ("weight", None),
        ("idf", None),
    ],
)
def test_inconsistent_tensors_are_refused(files, name, change):
    tensors = safetensors.numpy.load(files[WEIGHTS_FILE])
    values = tensors.pop(name)
    if change:
        tensors[name] = np.ascontiguousarray(change(values))
    with pytest.raises(BundleError, match="malformed"):
        Baseline.from_files({**files, WEIGHTS_FILE: safetensors.numpy.save(tensors)})
