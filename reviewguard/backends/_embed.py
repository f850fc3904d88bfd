"""What the three embedding backends share: a head is fitted on the cached vectors of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reviewguard.backends import Labelled
from reviewguard.backends._features import features
from reviewguard.nn.encoder import LoadedEncoder
from reviewguard.nn.heads import Head
from reviewguard.nn.model import TextModel, best_device, run
from reviewguard.scoring import Floats

Vectors: TypeAlias = tuple[Floats, NDArray[np.int64]]
"""Vectors, float32 (n, width), and class indices, int64 (n,)."""


def train_head(
    fit: Callable[[Vectors, Vectors | None], Head], train: Labelled, validation: Labelled | None, encoder: LoadedEncoder
) -> TextModel:
    """Encode both parts, through the cache, and fit a head on the training vectors."""
    held_out = (features(encoder, validation.texts), validation.y) if validation is not None else None
    head = fit((features(encoder, train.texts), train.y), held_out)
    return TextModel(encoder.encoder, head.eval()).to(best_device())


def logits(model: TextModel, texts: list[str], *, encoder: LoadedEncoder) -> Floats:
    """Logits, float32 (n, classes), from cached vectors."""
    return run(model.head, {"x": features(encoder, texts)})


def tensor(values: NDArray[np.floating]) -> Tensor:
    """A fitted coefficient as a float32 tensor of its own."""
    return torch.tensor(np.asarray(values), dtype=torch.float32)
