import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.data.tokens import Encoded, Tokenizer
from reviewguard.inference.scoring import batches, compute, score


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder) -> Tokenizer:
    return Tokenizer((tiny_encoder / "tokenizer.json").read_bytes(), (tiny_encoder / "tokenizer_config.json").read_bytes(), 32)


def _encoded(lengths: list[int]) -> list[Encoded]:
    return [Encoded([1] * length, truncated=False, fertility=1.0, words=1) for length in lengths]


@settings(deadline=None)
@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 2000))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget):
    groups = list(batches(_encoded(lengths), budget))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        most = max(lengths[row] for row in group)
        assert len(group) == 1 or len(group) * most <= budget
        assert sum(most - lengths[row] for row in group) <= budget / 16
    for group, following in pairwise(groups):
        # Rows are sorted by length, and each batch is as large as the limits allow.
        assert max(lengths[row] for row in group) <= min(lengths[row] for row in following)
        most = lengths[following[0]]
        assert (len(group) + 1) * most > budget or sum(most - lengths[row] for row in group) > budget / 16


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("budget", [1, 40, 64, 10_000])
def test_compute_returns_rows_in_the_order_of_the_input(tokenizer, sample, budget, workers):
    texts = ["", *sample.read_text(encoding="utf-8").splitlines()[:60], "good"]
    encoded = tokenizer.encode(texts)
    sizes = []

    def run(batch):
        sizes.append(batch["input_ids"].size)
        masked = batch["input_ids"] * batch["attention_mask"]
        return np.stack([masked.sum(axis=1), batch["attention_mask"].sum(axis=1)], axis=1).astype(np.float32)

    out = compute(run, tokenizer, encoded, budget, workers=workers)
    assert out.dtype == np.float32
    assert out.tolist() == [[sum(item.ids), len(item.ids)] for item in encoded]
    assert all(size <= max(budget, 32) for size in sizes)


def test_workers_compute_in_parallel(tokenizer):
    """Each batch waits for the other, so sequential computation would deadlock."""
    meeting = threading.Barrier(2, timeout=30)

    def run(batch):
        meeting.wait()
        return np.zeros((len(batch["input_ids"]), 2), np.float32)

    assert compute(run, tokenizer, tokenizer.encode(["a", "b"]), 1, workers=2).shape == (2, 2)


@pytest.mark.parametrize(("texts", "alone"), [(["a"], [True]), (["a", "b"], [True]), (["a " * 30] * 9, [False] * 5)])
def test_a_single_batch_uses_all_cores(tokenizer, texts, alone):
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
