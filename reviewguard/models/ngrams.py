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
_APART: Final = 50021


class NgramBag(nn.Module):
    """Scores of a text from its tokens, alone and in pairs, and from how often it repeats them.

    The scores of the n-grams are summed and divided by the root of their number.
    """

    def __init__(self, weight: Tensor, variety: Tensor) -> None:
        """Take the fitted scores.

        Args:
            weight: Of each bucket, float32 (buckets, scores).
            variety: Of each figure of `variety`, float32 (2, scores).

        Raises:
            ValueError: If they are not of these shapes, or there are more buckets than `MOST`.
        """
        super().__init__()
        if weight.ndim != 2 or not 0 < len(weight) <= MOST or not weight.shape[1] or variety.shape != (2, weight.shape[1]):
            raise ValueError(
                f"a bag of n-grams has weights (buckets, scores), {MOST} buckets at most, and (2, scores); got "
                f"{tuple(weight.shape)} and {tuple(variety.shape)}"
            )
        self.weight = nn.Parameter(weight)
        self.variety = nn.Parameter(variety)

    @property
    def width(self) -> int:
        """Scores of a text."""
        return self.weight.shape[1]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) ids and mask to float32 (batch, scores)."""
        grams, there = hashed(input_ids, attention_mask, len(self.weight))
        there = there.to(self.weight.dtype)
        total = (self.weight[grams] * there.unsqueeze(-1)).sum(dim=1) / there.sum(dim=1, keepdim=True).sqrt()
        share, length = variety(input_ids, attention_mask).to(self.weight.dtype).unsqueeze(-1).unbind(dim=1)
        return total + share * self.variety[0] + length * self.variety[1]


def hashed(input_ids: Tensor, attention_mask: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """Buckets of the n-grams of each row, and a mask of those that are there: int64 (batch, up to 3 * length - 3) each.

    N-grams are tokens, pairs of neighbours, and pairs with one token between (skip-grams: Guthrie et al. 2006).
    """
    firsts = input_ids % _FIRSTS * _PAIR
    neighbours = (firsts[:, :-1] + input_ids[:, 1:]) % buckets
    apart = (firsts[:, :-2] + input_ids[:, 2:] + _APART) % buckets
    grams = torch.cat([input_ids % buckets, neighbours, apart], dim=1)
    return grams, torch.cat([attention_mask, attention_mask[:, 1:], attention_mask[:, 2:]], dim=1)


def variety(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The type-token ratio of each row, and the logarithm of its tokens, on which the ratio depends: float32 (batch, 2).

    Among reviews of one length, GPT-2's repeat tokens more than people's do, and those of every later model measured here less.
    """
    same = (input_ids.unsqueeze(2) == input_ids.unsqueeze(1)) & attention_mask.bool().unsqueeze(1)
    # Of a token that is there n times, each is an nth of a type.
    types = (attention_mask / same.sum(dim=2).clamp(min=1)).sum(dim=1)
    tokens = attention_mask.sum(dim=1)
    return torch.stack([types / tokens, tokens.log()], dim=1)


def to_bytes(bag: NgramBag) -> bytes:
    """The contents of `ngrams.safetensors`."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in bag.state_dict().items()})


def from_bytes(content: bytes) -> NgramBag:
    """Read what `to_bytes` wrote.

    Raises:
        ValueError: If it is malformed.
    """
    try:
        return NgramBag(**load(content))
    except (TypeError, SafetensorError) as error:
        raise ValueError(f"ngrams.safetensors cannot be read: {error}") from error
