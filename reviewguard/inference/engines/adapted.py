"""A scorer that adds a correction to an export's logits: a linear function of the embeddings, fitted to a few examples."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard.bundle.folder import well_formed
from reviewguard.data.tokens import Batch
from reviewguard.errors import BundleError
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.scoring import Floats

FILE: Final = "adaptation.safetensors"


class Correction(NamedTuple):
    """Correction added to the log-odds of the positive class.

    Attributes:
        weight: Weights of the embedding, float32 (width,).
        bias: Constant term.
    """

    weight: NDArray[np.float32]
    bias: float

    def of(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Corrections, float32 (n,), for embeddings, float32 (n, width)."""
        correction: NDArray[np.float32] = embeddings @ self.weight + np.float32(self.bias)
        return correction

    def to_file(self) -> dict[str, bytes]:
        """Write the correction to a bundle file."""
        return {FILE: safetensors.numpy.save({"weight": self.weight, "bias": np.array(self.bias, dtype=np.float32)})}


def from_file(content: bytes) -> Correction:
    """Read the correction that `Correction.to_file` wrote.

    Raises:
        BundleError: If the file is malformed.
    """
    with well_formed(FILE):
        tensors = safetensors.numpy.load(content)
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim != 1 or bias.ndim != 0 or weight.dtype != np.float32:
            raise ValueError(f"shapes {weight.shape} and {bias.shape}, {weight.dtype}")
    return Correction(weight, float(bias))


class AdaptedScorer:
    """A `reviewguard.inference.scoring.Scorer` that wraps the scorer of a two-class export."""

    def __init__(self, inner: CpuScorer, correction: Correction, positive: int) -> None:
        """Combine a scorer, a correction, and the index of the positive class."""
        self.inner, self.correction, self.positive = inner, correction, positive
        self.name, self.workers, self.token_budget = f"{inner.name}, adapted", inner.workers, inner.token_budget

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Compute logits, float32 (batch, 2), from int64 (batch, length) inputs.

        Raises:
            BundleError: If the graph fails, see `CpuScorer.embedded`, or if the correction and the embeddings differ in width.
            ConfigError: If the export has no embeddings.
        """
        logits, embeddings = self.inner.embedded(batch, alone=alone)
        if embeddings.shape[1:] != self.correction.weight.shape:
            raise BundleError(f"{FILE} corrects embeddings of width {len(self.correction.weight)}, not {embeddings.shape[1]}")
        corrected = logits.copy()
        corrected[:, self.positive] += self.correction.of(embeddings)
        return corrected
