"""The model that all backends train: an encoder, optional n-gram scores, and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reviewguard.data.tokens import Batch
from reviewguard.inference.scoring import Floats
from reviewguard.models.device import token_budget
from reviewguard.models.heads import Head
from reviewguard.models.ngrams import NgramBag


class Encoder(nn.Module, ABC):
    """Maps token ids, int64 (batch, length), and their mask to one vector per text, float32 (batch, width).

    Attributes:
        tuned: Whether the encoder's own weights (not those of an adapter) differ from the published ones.
    """

    tuned = False

    @property
    @abstractmethod
    def width(self) -> int:
        """Dimension of the vectors."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Contents of config.json."""

    @abstractmethod
    def random_ids(self, rng: np.random.Generator, rows: int, length: int) -> NDArray[np.int64]:
        """Token ids (rows, length) on which the vectors differ, for comparisons of implementations."""


class TextModel(nn.Module):
    """An encoder with a head; implements `reviewguard.inference.scoring.Scorer` in torch."""

    workers = 1  # torch already uses all cores for each batch

    def __init__(self, encoder: Encoder, head: Head, bag: NgramBag | None = None) -> None:
        """Combine an encoder, an optional bag of n-grams, and a head as wide as both together."""
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.bag = bag
        # accelerate reads this attribute to find the layers that FSDP shards separately.
        layers = {name for module in encoder.modules() for name in getattr(module, "_no_split_modules", None) or ()}
        self._no_split_modules = sorted({type(module).__name__ for module in encoder.modules()} & layers)

    @property
    def name(self) -> str:
        """Name of the engine and device."""
        return f"torch on {next(self.parameters()).device}"

    @property
    def token_budget(self) -> int:
        """Maximum number of tokens in a batch, padding included."""
        return token_budget(next(self.parameters()).device)

    def embeddings(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) token ids and mask to the head's input, float32 (batch, width)."""
        features: Tensor = self.encoder(input_ids, attention_mask)
        return features if self.bag is None else torch.cat([features, self.bag(input_ids, attention_mask)], dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) token ids and mask to logits, float32 (batch, classes)."""
        logits: Tensor = self.head(self.embeddings(input_ids, attention_mask))
        return logits

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Compute logits, float32 (batch, classes), of a numpy batch in evaluation mode, without gradients."""
        return run(self, batch)


def run(module: nn.Module, batch: Mapping[str, NDArray[Any]]) -> Floats:
    """Apply a module to a numpy batch on the module's device, in evaluation mode and without gradients."""
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            out: Tensor = module(**{name: torch.from_numpy(values).to(device) for name, values in batch.items()})
            values: Floats = out.float().cpu().numpy()
    finally:
        module.train(was_training)
    return values
