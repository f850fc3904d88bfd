"""A multilayer perceptron on embeddings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import trange

from reviewguard.config import EncoderRecipe, Positive
from reviewguard.errors import ConfigError, DataError
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.models.heads import MlpHead
from reviewguard.models.text_model import run
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._embed import Vectors, load, logits, tensor, train_head
from reviewguard.training.finetuning.batches import row_weights
from reviewguard.training.finetuning.checkpoint import Run

__all__ = ["Config", "fit_head", "load", "logits", "train"]


class Config(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the perceptron. The defaults are those of the study.

    Attributes:
        hidden: Width of each hidden layer.
        dropout: Dropout rate after each hidden layer.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        batch_size: Rows per step.
        max_epochs: Maximum number of epochs.
        patience: Epochs without a better macro F1 on validation rows after which training stops; the best epoch is kept.
        class_weight: "balanced" weights rows inversely to the frequency of their class; "none" weights all rows equally.
    """

    hidden: tuple[Positive, ...] = (512, 256, 128)
    dropout: tuple[Annotated[float, msgspec.Meta(ge=0, lt=1)], ...] = (0.3, 0.3, 0.2)
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    batch_size: Positive = 64
    max_epochs: Positive = 100
    patience: Positive = 10
    class_weight: Literal["balanced", "none"] = "balanced"


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Train the perceptron with early stopping on validation rows, or on a tenth of the training rows if there are none."""
    return train_head(lambda fit_on, stop_on: fit_head(fit_on, stop_on, len(classes), config), train, validation, encoder, run)


def fit_head(train: Vectors, validation: Vectors | None, classes: int, config: Config) -> MlpHead:
    """Train on embeddings, float32 (n, width), and keep the epoch with the best macro F1 on validation rows.

    Raises:
        ConfigError: If `hidden` and `dropout` differ in length.
        DataError: If there are no validation rows and too few training rows to hold some out.
    """
    if len(config.hidden) != len(config.dropout):
        raise ConfigError(f"hidden has {len(config.hidden)} layers and dropout {len(config.dropout)}; give one dropout per layer")
    if validation is None:
        train, validation = _hold_out(train, config.seed)
    x, y = train.x, train.y
    # fork_rng restores the caller's random state.
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        head = _initial(x.shape[1], classes, config)
        weights = tensor(row_weights(y, train.weight, config.class_weight))
        optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        best_f1, best_epoch, best = -1.0, 0, head.state_dict()
        with trange(config.max_epochs, desc="perceptron", unit=" epochs", disable=None, leave=False) as epochs:
            for epoch in epochs:
                head.train()
                for rows in torch.split(torch.randperm(len(x)), config.batch_size):
                    optimizer.zero_grad()
                    losses = nn.functional.cross_entropy(head(inputs[rows]), targets[rows], reduction="none")
                    loss: Tensor = (losses * weights[rows]).sum() / weights[rows].sum()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                predicted = run(head, {"x": validation.x}).argmax(axis=1)
                f1 = float(f1_score(validation.y, predicted, average="macro", sample_weight=validation.weight, zero_division=0.0))
                epochs.set_postfix(f1=f"{f1:.4f}")
                if f1 > best_f1:
                    best_f1, best_epoch, best = f1, epoch, copy.deepcopy(head.state_dict())
                elif epoch - best_epoch >= config.patience:
                    break
    head.load_state_dict(best)
    return head


def _initial(width: int, classes: int, config: Config) -> MlpHead:
    widths = [width, *config.hidden, classes]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return MlpHead([(layer.weight.data, layer.bias.data) for layer in layers], config.dropout)


def _hold_out(vectors: Vectors, seed: int) -> tuple[Vectors, Vectors]:
    rows = np.arange(len(vectors.y))
    try:
        fit_on, stop_on = train_test_split(rows, test_size=0.1, stratify=vectors.y, random_state=seed)
    except ValueError as error:
        raise DataError(f"too few rows to hold out a tenth for early stopping ({error}); pass validation data") from error
    x, y, weight = vectors
    parts = [Vectors(x[part], y[part], None if weight is None else weight[part]) for part in (fit_on, stop_on)]
    return parts[0], parts[1]
