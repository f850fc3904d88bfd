"""Common functions of the backends that fit a head on the cached embeddings of a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from reviewguard.config import EncoderRecipe
from reviewguard.errors import ConfigError
from reviewguard.inference.scoring import Floats
from reviewguard.models.device import best_device
from reviewguard.models.encoder import LoadedEncoder, load_encoder
from reviewguard.models.heads import Head
from reviewguard.models.text_model import TextModel, run
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._features import features
from reviewguard.training.finetuning.checkpoint import Run


class Vectors(NamedTuple):
    """Embedded rows to fit a head on.

    Attributes:
        x: Embeddings, float32 (n, width).
        y: Class indices, int64 (n,).
        weight: Row weights, float64 (n,). None: all weights are 1.
    """

    x: Floats
    y: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None


def load(config: EncoderRecipe) -> LoadedEncoder:
    """Load the frozen encoder in full precision."""
    return load_encoder(config.encoder)


def train_head(
    fit: Callable[[Vectors, Vectors | None], Head], train: Labelled, validation: Labelled | None, encoder: LoadedEncoder, run: Run
) -> Trained:
    """Encode both splits, using the cache, and fit a head on the training embeddings.

    Raises:
        ConfigError: If `run.resume` is set: there are no checkpoints.
    """
    if run.resume:
        raise ConfigError("a head on frozen embeddings has no checkpoints, and encoding resumes from its cache; omit resume")
    held_out = None if validation is None else _vectors(validation, encoder)
    head = fit(_vectors(train, encoder), held_out)
    return Trained(TextModel(encoder.encoder, head.eval()).to(best_device()))


def _vectors(rows: Labelled, encoder: LoadedEncoder) -> Vectors:
    return Vectors(features(encoder, rows.texts), rows.y, rows.weight)


def logits(model: TextModel, texts: list[str], *, encoder: LoadedEncoder) -> Floats:
    """Compute logits, float32 (n, classes), from cached embeddings."""
    return run(model.head, {"x": features(encoder, texts)})


def coefficients(fitted: LogisticRegression) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Weights (classes, width) and intercepts (classes,); with two classes, the logit of the first is 0."""
    if len(fitted.classes_) > 2:
        return fitted.coef_, fitted.intercept_
    return np.vstack([np.zeros_like(fitted.coef_), fitted.coef_]), np.concatenate([[0.0], fitted.intercept_])


def tensor(values: NDArray[np.floating]) -> Tensor:
    """Copy fitted coefficients to a float32 tensor."""
    return torch.tensor(np.asarray(values), dtype=torch.float32)
