"""The TF-IDF encoder and its files; its fitting is tested with the backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from reviewguard.data.reviews import read
from reviewguard.errors import BundleError
from reviewguard.models.tfidf import TfidfEncoder, character_tokenizer, from_files, scores, to_files, with_supported

TERMS_FILE, WEIGHTS_FILE = "baseline.json", "baseline.safetensors"
#: White space, other scripts, symbols beyond the basic plane, an unsupported character, and texts without n-grams.
UNUSUAL = [
    "",
    "x",
    "a  \t\n b",
    "\u4e2d\u6587\u4e2d\u6587",
    "\U0001f600\U0001f600 good",
    "so \U00020000\U00020000 good",
    "good" * 400,
]


def encoder_of(
    texts: list[str], max_features: int | None = None
) -> tuple[TfidfEncoder, Callable[[list[str]], NDArray[np.float64]]]:
    """An encoder with random coefficients on the terms of these texts, and the same function by scikit-learn."""
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(2, 5), lowercase=False, sublinear_tf=True, max_features=max_features
    ).fit(map(with_supported, texts))
    weight, bias = np.random.default_rng(0).normal(size=(3, len(vectorizer.idf_))), np.arange(3.0)
    tensors = [torch.tensor(values, dtype=torch.float32) for values in (vectorizer.idf_, weight, bias)]
    encoder = TfidfEncoder(vectorizer.get_feature_names_out().tolist(), *tensors).eval()
    return encoder, lambda others: vectorizer.transform(map(with_supported, others)) @ weight.T + bias


@pytest.mark.parametrize("max_features", [None, 500, 1])
def test_scores_equal_those_of_scikit_learn(sample: Path, max_features: int | None) -> None:
    texts = [*read(sample).texts, *UNUSUAL]
    encoder, expected = encoder_of(texts[::2], max_features)
    np.testing.assert_allclose(scores(encoder, texts), expected(texts), atol=2e-5)


def test_unsupported_characters_are_one_token() -> None:
    texts = ["a\U00020000b", "a\ud800b", "a\ue000b"]
    assert {with_supported(text) for text in texts} == {"a\ufffdb"}
    tokenizer = character_tokenizer(8)
    assert len({tuple(item.ids) for item in tokenizer.encode(texts)}) == 1
    assert [item.truncated for item in tokenizer.encode(["abcdefgh", "abcdefghi"])] == [False, True]


def test_random_ids_form_terms(sample: Path) -> None:
    encoder, _ = encoder_of(read(sample).texts[:20])
    ids = torch.from_numpy(encoder.random_ids(np.random.default_rng(0), 6, 30))
    assert ids.shape == (6, 30)
    values = encoder(ids, torch.ones_like(ids)).detach().numpy()
    assert len(np.unique(values.round(4), axis=0)) == 6


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return to_files(encoder_of(["good kettle", "bad strap"])[0], "baseline")


def test_files_round_trip(sample: Path) -> None:
    encoder, _ = encoder_of([*read(sample).texts, *UNUSUAL], 2000)
    files = to_files(encoder, "any")
    assert set(files) == {"any.json", "any.safetensors"}
    again = from_files(files.__getitem__, "any")
    np.testing.assert_array_equal(scores(again, UNUSUAL), scores(encoder, UNUSUAL))
    assert to_files(again, "any") == files


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
def test_malformed_files(files: dict[str, bytes], name: str, content: bytes | None) -> None:
    changed = {**files, name: content}
    with pytest.raises(BundleError, match=r"baseline\.json, or baseline\.safetensors, is malformed"):
        from_files({key: value for key, value in changed.items() if value is not None}.__getitem__, "baseline")


@pytest.mark.parametrize("term", ["goo", "a", "kettle", "a\U00020000", ""])
def test_terms_that_cannot_be_looked_up_are_refused(files: dict[str, bytes], term: str) -> None:
    """A repeated one ("goo"), and those of a length or character that is not supported."""
    terms = json.loads(files[TERMS_FILE])
    assert "goo" in terms[1:]
    with pytest.raises(BundleError, match="malformed"):
        from_files({**files, TERMS_FILE: json.dumps([term, *terms[1:]]).encode()}.__getitem__, "baseline")


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
def test_inconsistent_tensors_are_refused(
    files: dict[str, bytes], name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None
) -> None:
    tensors = safetensors.numpy.load(files[WEIGHTS_FILE])
    values = tensors.pop(name)
    if change:
        tensors[name] = np.ascontiguousarray(change(values))
    with pytest.raises(BundleError, match="malformed"):
        from_files({**files, WEIGHTS_FILE: safetensors.numpy.save(tensors)}.__getitem__, "baseline")
