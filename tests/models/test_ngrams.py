"""The bag of n-grams: its scores, independence of padding and other texts, and rejected inputs."""

from __future__ import annotations

import math

import pytest
import torch

from reviewguard.models.ngrams import MOST, NgramBag, from_bytes, hashed, to_bytes, type_token_ratio


def _bag(buckets: int = 4096) -> NgramBag:
    generator = torch.Generator().manual_seed(0)
    return NgramBag(torch.randn(buckets, 3, generator=generator), torch.randn(2, 3, generator=generator))


def _padded(*rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def _scores(bag: NgramBag, *rows: list[int]) -> torch.Tensor:
    scores: torch.Tensor = bag(*_padded(*rows))
    return scores


def test_scores_sum_over_tokens_pairs_and_skip_grams() -> None:
    bag, (ids, mask) = _bag(), _padded([5, 9, 7])
    grams, present = hashed(ids, mask, 4096)
    assert grams.shape == present.shape == (1, 6)
    assert grams[0, :3].tolist() == [5, 9, 7]
    ratio_score = bag.variety[0] + math.log(3) * bag.variety[1]
    torch.testing.assert_close(bag(ids, mask)[0], bag.weight[grams[0]].sum(0) / 6**0.5 + ratio_score)
    # The hash of a pair depends on the order, and on a token between.
    assert len({hashed(*_padded(row), MOST)[0][0, -1].item() for row in ([5, 9], [9, 5], [5, 1, 9], [9, 1, 5])}) == 4
    assert len({tuple(row) for row in _scores(bag, [5, 9, 7], [7, 9, 5], [9, 5, 7]).tolist()}) == 3


def test_type_token_ratio_and_log_length() -> None:
    features = type_token_ratio(*_padded([4, 4, 4, 8], [0, 6], [9]))
    torch.testing.assert_close(features, torch.tensor([[0.5, math.log(4)], [1, math.log(2)], [1, 0]]))


def test_padding_and_other_texts_have_no_effect() -> None:
    bag, rows = _bag(), [[3], [3, 4], [3, 4, 5], [8, 1, 8, 1, 8, 1, 8]]
    together = _scores(bag, *rows)
    for row, scores in zip(rows, together, strict=True):
        torch.testing.assert_close(_scores(bag, row)[0], scores)


def test_n_grams_rarely_collide() -> None:
    ids = torch.randint(0, 13_000, (1, 20_000), generator=torch.Generator().manual_seed(0))
    for buckets in (2**16, 2**17, MOST):
        grams = hashed(ids, torch.ones_like(ids), buckets)[0][0]
        for pairs in (grams[20_000:39_999], grams[39_999:]):
            # Expected number of occupied buckets for random hashes.
            expected = buckets * (1 - (1 - 1 / buckets) ** len(pairs))
            assert len(pairs.unique()) > 0.97 * expected


def test_hashing_stays_within_31_bits() -> None:
    ids = torch.tensor([[2**18 - 1] * 4])
    wide, _ = hashed(ids, torch.ones_like(ids), MOST)
    narrow, _ = hashed(ids.int(), torch.ones_like(ids), MOST)
    assert narrow.tolist() == wide.tolist()


def test_round_trip_and_rejected_inputs() -> None:
    bag = _bag(8)
    torch.testing.assert_close(dict(from_bytes(to_bytes(bag)).state_dict()), dict(bag.state_dict()))
    with pytest.raises(ValueError, match=r"cannot be read"):
        from_bytes(b"no tensors")
    for shape in ((3,), (0, 3), (3, 0), (MOST + 1, 1)):
        with pytest.raises(ValueError, match="at most 262144 buckets"):
            NgramBag(torch.zeros(shape), torch.zeros(2, shape[-1]))
    with pytest.raises(ValueError, match=r"got \(8, 3\) and \(3, 3\)"):
        NgramBag(torch.zeros(8, 3), torch.zeros(3, 3))
