import threading
from itertools import pairwise

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.scoring import Prediction, batches, compute, predictions, score, softmax
from reviewguard.tokens import Encoded, Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder) -> Tokenizer:
    return Tokenizer((tiny_encoder / "tokenizer.json").read_bytes(), (tiny_encoder / "tokenizer_config.json").read_bytes(), 32)


def _encoded(lengths: list[int]) -> list[Encoded]:
    return [Encoded([1] * length, truncated=False) for length in lengths]


@settings(deadline=None)
@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 2000))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget):
    groups = list(batches(_encoded(lengths), budget))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget
    for group, following in pairwise(groups):
        # Rows are sorted by length, and no batch is smaller than it has to be.
        assert max(lengths[row] for row in group) <= min(lengths[row] for row in following)
        assert (len(group) + 1) * lengths[following[0]] > budget


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("budget", [1, 40, 64, 10_000])
def test_compute_returns_rows_in_the_order_of_the_input(tokenizer, sample, budget, workers):
    texts = ["", *sample.read_text(encoding="utf-8").splitlines()[:60], "good"]
    encoded = tokenizer.encode(texts)
    sizes = []

    def run(batch):
        sizes.append(batch["input_ids"].size)
        own = batch["input_ids"] * batch["attention_mask"]
        return np.stack([own.sum(axis=1), batch["attention_mask"].sum(axis=1)], axis=1).astype(np.float32)

    out = compute(run, tokenizer, encoded, budget, workers=workers)
    assert out.dtype == np.float32
    assert out.tolist() == [[sum(item.ids), len(item.ids)] for item in encoded]
    assert all(size <= max(budget, 32) for size in sizes)


def test_workers_compute_side_by_side(tokenizer):
    """Each waits for the other: one after the other, they would wait for ever."""
    meeting = threading.Barrier(2, timeout=30)

    def run(batch):
        meeting.wait()
        return np.zeros((len(batch["input_ids"]), 2), np.float32)

    assert compute(run, tokenizer, tokenizer.encode(["a", "b"]), 1, workers=2).shape == (2, 2)


@pytest.mark.parametrize(("texts", "alone"), [(["a"], [True]), (["a", "b"], [True]), (["a " * 30] * 9, [False] * 5)])
def test_a_single_batch_has_all_cores(tokenizer, texts, alone):
    seen = []

    class Scorer:
        name, token_budget, workers = "a scorer", 64, 2

        def logits(self, batch, *, alone=False):
            seen.append(alone)
            return np.zeros((len(batch["input_ids"]), 2), np.float32)

    assert score(Scorer(), tokenizer, tokenizer.encode(texts)).shape == (len(texts), 2)
    assert seen == alone


def test_compute_without_texts(tokenizer):
    with pytest.raises(ValueError, match="at least one text"):
        compute(lambda batch: np.zeros((1, 2), np.float32), tokenizer, [], 64)


@pytest.mark.parametrize("progress", ["", "encoding"])
def test_progress_is_silent_off_terminals(tokenizer, capfd, progress):
    compute(
        lambda batch: np.zeros((len(batch["input_ids"]), 2), np.float32), tokenizer, tokenizer.encode(["a", "b"]), 64, progress
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[1e4, -1e4]], [[1, 0]]),
        ([[3e38, 3e38]], [[0.5, 0.5]]),
        ([[-3e38, -3e38, -3e38, -3e38]], [[0.25] * 4]),
        ([[0, np.log(3)]], [[0.25, 0.75]]),
        ([[-np.inf, 0]], [[0, 1]]),
    ],
)
def test_softmax_is_stable(logits, expected):
    probabilities = softmax(np.array(logits, dtype=np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


def test_softmax_equals_scipys():
    logits = np.random.default_rng(0).normal(scale=8, size=(50, 5)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits.astype(np.float64), axis=1), rtol=2e-6)


def test_predictions_name_the_most_probable_class():
    probabilities = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], dtype=np.float32)
    encoded = [Encoded([1], truncated=True), Encoded([1], truncated=False)]
    found = predictions(probabilities, encoded, ["a", "b", "c"])
    assert found == [Prediction("b", pytest.approx(0.7), True), Prediction("a", 0.5, False)]
    assert all(type(one.score) is float for one in found)
    assert predictions(np.empty((0, 3), np.float32), [], ["a", "b", "c"]) == []


def test_predictions_refuse_rows_that_do_not_match():
    with pytest.raises(ValueError, match="zip"):
        predictions(np.zeros((2, 2), np.float32), [Encoded([1], False)], ["a", "b"])
