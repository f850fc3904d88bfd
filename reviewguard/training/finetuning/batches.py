"""Tokenised rows, their order in an epoch, and batches for the training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
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
        y: Class indices, int64 (n,).
        weight: Row weights, float64 (n,). None: all weights are 1.
    """

    encoded: list[Encoded]
    y: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None


def row_weights(
    y: NDArray[np.int64], weight: NDArray[np.float64] | None, class_weight: Literal["balanced", "none"]
) -> NDArray[np.float64]:
    """Weight of each row in the loss: the row weight times the class weight.

    Args:
        y: Class indices, int64 (n,). Each class occurs.
        weight: Row weights, float64 (n,). None: all weights are 1.
        class_weight: "balanced" gives each class the same sum of weights without changing the total; "none" keeps row weights.

    Returns:
        Weights, float64 (n,). A row of weight 2 counts as much as two equal rows.
    """
    weight = np.ones(len(y)) if weight is None else weight
    if class_weight == "none":
        return weight
    class_weights: NDArray[np.float64] = compute_class_weight("balanced", classes=np.unique(y), y=y, sample_weight=weight)
    return weight * class_weights[y]


def sorted_by_length(rows: Rows) -> Rows:
    """Sort rows by length, shortest first, so that batches contain little padding."""
    order = sorted(range(len(rows.encoded)), key=lambda i: len(rows.encoded[i].ids))
    weight = None if rows.weight is None else rows.weight[order]
    return Rows([rows.encoded[i] for i in order], rows.y[order], weight)


def digest(rows: Rows) -> str:
    """SHA-256 of the tokens, classes and weights, in order."""
    sha256 = hashlib.sha256(rows.y.tobytes())
    if rows.weight is not None:
        sha256.update(rows.weight.tobytes())
    for item in rows.encoded:
        sha256.update(np.array(item.ids, dtype=np.int64).tobytes() + b"|")
    return sha256.hexdigest()


class Batches(NamedTuple):
    """How each optimizer step is divided.

    Attributes:
        rows: Rows in one micro-batch on one device.
        processes: Number of processes.
        accumulation: Micro-batches whose gradients are accumulated.
    """

    rows: int
    processes: int
    accumulation: int


def divided(loop: LoopConfig, processes: int) -> Batches:
    """Divide the rows of a step between processes and micro-batches.

    Raises:
        ConfigError: If the rows of a step cannot be divided evenly.
    """
    rows = min(loop.micro_batch_size, max(loop.batch_size // processes, 1))
    if loop.batch_size % (rows * processes):
        raise ConfigError(
            f"loop.batch_size {loop.batch_size} is not a multiple of loop.micro_batch_size {rows} times {processes} process(es); "
            "change one of them"
        )
    return Batches(rows, processes, loop.batch_size // (rows * processes))


class LengthGroupedSampler(Sampler[int]):
    """Random order that groups rows of similar length. It depends only on the seed and the epoch.

    Rows are shuffled and sorted by length within blocks of fifty batches; then the batches are shuffled. Unlike with
    transformers' class of the same name, no part of an epoch has longer texts than another.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.array(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        rows = rng.permutation(len(self._lengths))
        batches: list[NDArray[np.int64]] = []
        size = self._batch_size * _BATCHES_SORTED_TOGETHER
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            block = block[np.argsort(self._lengths[block], kind="stable")]
            batches += [block[i : i + self._batch_size] for i in range(0, len(block), self._batch_size)]
        # A smaller batch must come last: in the middle, it would shift the boundaries of all later batches.
        last = [batches.pop()] if len(rows) % self._batch_size else []
        order = [batches[i] for i in rng.permutation(len(batches))] + last
        return (int(row) for batch in order for row in batch)


class TokenDataset(Dataset[tuple[Encoded, int, float]]):
    """Rows as a torch dataset of tokens, class and weight."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._weights = np.ones(len(rows.y)) if rows.weight is None else rows.weight

    def __len__(self) -> int:
        return len(self._rows.encoded)

    def __getitem__(self, row: int) -> tuple[Encoded, int, float]:
        return self._rows.encoded[row], int(self._rows.y[row]), float(self._weights[row])


class Collator:
    """Collates rows to a batch, padded to the longest row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, items: Sequence[tuple[Encoded, int, float]]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (batch, longest) and `labels` (batch,), int64, and `weights` (batch,), float32."""
        encoded, labels, weights = zip(*items, strict=True)
        batch = {name: torch.from_numpy(values) for name, values in self._tokenizer.pad(encoded).items()}
        return {**batch, "labels": torch.tensor(labels), "weights": torch.tensor(weights, dtype=torch.float32)}
