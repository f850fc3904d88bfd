"""A linear bag-of-n-grams model that is combined with an encoder.

A linear model on n-grams and a deep model make different errors, and their combination makes fewer (wide and deep learning:
Cheng et al. 2016, arXiv:1606.07792). N-grams are hashed into buckets (Weinberger et al. 2009, arXiv:0902.2206), so there is no
vocabulary.
"""

from __future__ import annotations

from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

#: Maximum number of buckets. This and the constants below keep hash values below 2^31: some engines use 32-bit integers.
MOST: Final = 2**18
_FIRSTS: Final = 16381
_PAIR: Final = 81001
_APART: Final = 50021


class NgramBag(nn.Module):
    """Scores a text by its tokens, its token pairs and its type-token ratio.

    The n-gram scores are summed and divided by the square root of the number of n-grams.
    """

    def __init__(self, weight: Tensor, variety: Tensor) -> None:
        """Take the fitted weights.

        Args:
            weight: Weights of the buckets, float32 (buckets, scores).
            variety: Weights of the two features of `type_token_ratio`, float32 (2, scores).

        Raises:
            ValueError: If the shapes differ, or there are more than `MOST` buckets.
        """
        super().__init__()
        if weight.ndim != 2 or not 0 < len(weight) <= MOST or not weight.shape[1] or variety.shape != (2, weight.shape[1]):
            raise ValueError(
                f"n-gram weights must have the shapes (buckets, scores), with at most {MOST} buckets, and (2, scores); got "
                f"{tuple(weight.shape)} and {tuple(variety.shape)}"
            )
        self.weight = nn.Parameter(weight)
        self.variety = nn.Parameter(variety)

    @property
    def width(self) -> int:
        """Number of scores per text."""
        return self.weight.shape[1]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) token ids and mask to float32 (batch, scores)."""
        grams, present = hashed(input_ids, attention_mask, len(self.weight))
        present = present.to(self.weight.dtype)
        total = (self.weight[grams] * present.unsqueeze(-1)).sum(dim=1) / present.sum(dim=1, keepdim=True).sqrt()
        ratio, log_length = type_token_ratio(input_ids, attention_mask).to(self.weight.dtype).unsqueeze(-1).unbind(dim=1)
        return total + ratio * self.variety[0] + log_length * self.variety[1]


def hashed(input_ids: Tensor, attention_mask: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """Hash the n-grams of each row. Returns their buckets and their mask, each int64 (batch, up to 3 * length - 3).

    N-grams are single tokens, pairs of adjacent tokens, and pairs with one token between them (skip-grams: Guthrie et al. 2006).
    """
    firsts = input_ids % _FIRSTS * _PAIR
    neighbours = (firsts[:, :-1] + input_ids[:, 1:]) % buckets
    apart = (firsts[:, :-2] + input_ids[:, 2:] + _APART) % buckets
    grams = torch.cat([input_ids % buckets, neighbours, apart], dim=1)
    return grams, torch.cat([attention_mask, attention_mask[:, 1:], attention_mask[:, 2:]], dim=1)


def type_token_ratio(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Type-token ratio of each row, and the logarithm of its number of tokens, on which the ratio depends: float32 (batch, 2).

    At equal length, GPT-2's reviews repeat tokens more often than human reviews, and those of every later model measured here
    less often.
    """
    same = (input_ids.unsqueeze(2) == input_ids.unsqueeze(1)) & attention_mask.bool().unsqueeze(1)
    # Each of the n occurrences of a token counts as 1/n of a type.
    types = (attention_mask / same.sum(dim=2).clamp(min=1)).sum(dim=1)
    tokens = attention_mask.sum(dim=1)
    return torch.stack([types / tokens, tokens.log()], dim=1)


def to_bytes(bag: NgramBag) -> bytes:
    """Serialise to the contents of `ngrams.safetensors`."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in bag.state_dict().items()})


def from_bytes(content: bytes) -> NgramBag:
    """Read the contents of `ngrams.safetensors`.

    Raises:
        ValueError: If the contents are malformed.
    """
    try:
        return NgramBag(**load(content))
    except (TypeError, SafetensorError) as error:
        raise ValueError(f"ngrams.safetensors cannot be read: {error}") from error
