"""A bag of token n-grams beside an encoder: which words a text is made of, where the encoder's vector says what it is like.

A linear model of n-grams and a deep model err on different texts, and together err less (wide and deep learning: Cheng et al.
2016, arXiv:1606.07792). N-grams are counted in hashed buckets (Weinberger et al. 2009, arXiv:0902.2206); nobody keeps a list.
"""

from __future__ import annotations

from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

#: Buckets at most. With it, and with what follows, hashing stays below 2^31: some engines compute integers in 32 bits.
MOST: Final = 2**18
_FIRSTS: Final = 16381
_PAIR: Final = 81001
_TRIPLE: Final = 7919


class NgramBag(nn.Module):
    """Scores of a text from its tokens, alone and in twos and threes: a sum over them, divided by the root of their number."""

    def __init__(self, weight: Tensor) -> None:
        """Take the scores of each bucket, float32 (buckets, scores).

        Raises:
            ValueError: If that is no matrix, or one of more buckets than `MOST`.
        """
        super().__init__()
        if weight.ndim != 2 or not 0 < len(weight) <= MOST or not weight.shape[1]:
            raise ValueError(f"a bag of n-grams has weights (buckets, scores), {MOST} buckets at most; got {tuple(weight.shape)}")
        self.weight = nn.Parameter(weight)

    @property
    def width(self) -> int:
        """Scores of a text."""
        return self.weight.shape[1]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) ids and mask to float32 (batch, scores)."""
        grams, there = hashed(input_ids, attention_mask, len(self.weight))
        there = there.to(self.weight.dtype)
        total = (self.weight[grams] * there.unsqueeze(-1)).sum(dim=1)
        return total / there.sum(dim=1, keepdim=True).sqrt()


def hashed(input_ids: Tensor, attention_mask: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """Buckets of the n-grams of each row, and a mask of those that are there: int64 (batch, up to 3 * length - 3) each."""
    twos = (input_ids[:, :-1] % _FIRSTS * _PAIR + input_ids[:, 1:]) % buckets
    threes = (twos[:, :-1] * _TRIPLE + input_ids[:, 2:]) % buckets
    grams = torch.cat([input_ids % buckets, twos, threes], dim=1)
    return grams, torch.cat([attention_mask, attention_mask[:, 1:], attention_mask[:, 2:]], dim=1)


def to_bytes(bag: NgramBag) -> bytes:
    """The contents of `ngrams.safetensors`."""
    return save({"weight": bag.weight.detach().cpu().contiguous()})


def from_bytes(content: bytes) -> NgramBag:
    """Read what `to_bytes` wrote.

    Raises:
        ValueError: If it is malformed.
    """
    try:
        return NgramBag(load(content)["weight"])
    except (KeyError, SafetensorError) as error:
        raise ValueError(f"ngrams.safetensors cannot be read: {error}") from error
