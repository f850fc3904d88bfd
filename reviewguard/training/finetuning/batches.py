"""Tokenised rows on their way into the training loop: their order, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from reviewguard.config import LoopConfig
from reviewguard.data.tokens import Encoded, Tokenizer
from reviewguard.errors import ConfigError

_BATCHES_SORTED_TOGETHER: Final = 50


class Rows(NamedTuple):
    """Tokenised rows to train on or to score.

    Attributes:
        encoded: Tokenised texts, n of them.
        y: Index of each one's class, int64 (n,).
        weight: Of each row, float64 (n,); None: all are 1.
    """

    encoded: list[Encoded]
    y: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None


def row_weights(
    y: NDArray[np.int64], weight: NDArray[np.float64] | None, class_weight: Literal["balanced", "none"]
) -> NDArray[np.float64]:
    """What each row counts in a loss: its own weight, times that of its class.

    Args:
        y: Class indices, int64 (n,); each class occurs.
        weight: Of each row, float64 (n,); None: all are 1.
        class_weight: "balanced" gives each class the same sum of weights, and leaves the sum of all as it is.

    Returns:
        float64 (n,). A row of weight 2 counts as that row twice.
    """
    own = np.ones(len(y)) if weight is None else weight
    if class_weight == "none":
        return own
    sums = np.bincount(y, own)
    of_class: NDArray[np.float64] = own.sum() / (len(sums) * sums)
    return own * of_class[y]


def sorted_by_length(rows: Rows) -> Rows:
    """Shortest first, so that batches hold little padding."""
    order = sorted(range(len(rows.encoded)), key=lambda i: len(rows.encoded[i].ids))
    weight = None if rows.weight is None else rows.weight[order]
    return Rows([rows.encoded[i] for i in order], rows.y[order], weight)


def digest(rows: Rows) -> str:
    """The sha256 of tokens, classes and weights, in order."""
    sha256 = hashlib.sha256(rows.y.tobytes())
    if rows.weight is not None:
        sha256.update(rows.weight.tobytes())
    for item in rows.encoded:
        sha256.update(np.array(item.ids, dtype=np.int64).tobytes() + b"|")
    return sha256.hexdigest()


def micro_batch(loop: LoopConfig, processes: int) -> int:
    """Rows that each of so many processes computes at once.

    Raises:
        ConfigError: If the rows of a step cannot be dealt out evenly.
    """
    rows = min(loop.micro_batch_size, max(loop.batch_size // processes, 1))
    if loop.batch_size % (rows * processes):
        raise ConfigError(
            f"loop.batch_size {loop.batch_size} is no multiple of loop.micro_batch_size {rows} times {processes} process(es); "
            "change one of them"
        )
    return rows


class Order(Sampler[int]):
    """Random order in which rows of similar length stand together; a function of the seed and the epoch alone.

    Rows are shuffled, sorted by length within pieces of fifty batches, and the batches shuffled again: unlike in transformers'
    LengthGroupedSampler, no part of an epoch sees longer texts than another.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.array(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        rows = rng.permutation(len(self._lengths))
        batches: list[NDArray[np.int64]] = []
        size = self._batch_size * _BATCHES_SORTED_TOGETHER
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            piece = piece[np.argsort(self._lengths[piece], kind="stable")]
            batches += [piece[i : i + self._batch_size] for i in range(0, len(piece), self._batch_size)]
        # Only the last batch of all may be smaller: were it in the middle, later rows would be cut into other batches.
        last = [batches.pop()] if len(rows) % self._batch_size else []
        order = [batches[i] for i in rng.permutation(len(batches))] + last
        return (int(row) for batch in order for row in batch)


class TokenDataset(Dataset[tuple[Encoded, int, float]]):
    """Rows as torch's loaders want them: tokens, class and weight."""

    def __init__(self, rows: Rows, weights: NDArray[np.float64]) -> None:
        self._rows = rows
        self._weights = weights

    def __len__(self) -> int:
        return len(self._rows.encoded)

    def __getitem__(self, row: int) -> tuple[Encoded, int, float]:
        return self._rows.encoded[row], int(self._rows.y[row]), float(self._weights[row])


class Collator:
    """A batch of rows, padded to the longest of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, items: Sequence[tuple[Encoded, int, float]]) -> dict[str, Tensor]:
        """Tensors `input_ids`, `attention_mask` (batch, longest), `labels` (batch,), int64, and `weights` (batch,), float32."""
        encoded, labels, weights = zip(*items, strict=True)
        batch = {name: torch.from_numpy(values) for name, values in self._tokenizer.pad(encoded).items()}
        return {**batch, "labels": torch.tensor(labels), "weights": torch.tensor(weights, dtype=torch.float32)}
