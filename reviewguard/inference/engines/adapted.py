"""An export whose logits are corrected by what a few examples taught: a linear function of its embeddings."""

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
    """What is added to the log-odds of the positive class.

    Attributes:
        weight: Of the embeddings, float32 (width,).
        bias: The same for every text.
    """

    weight: NDArray[np.float32]
    bias: float

    def of(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The correction of each text, float32 (n,), by its embedding, float32 (n, width)."""
        correction: NDArray[np.float32] = embeddings @ self.weight + np.float32(self.bias)
        return correction

    def to_file(self) -> dict[str, bytes]:
        """The file of a bundle."""
        return {FILE: safetensors.numpy.save({"weight": self.weight, "bias": np.array(self.bias, dtype=np.float32)})}


def from_file(content: bytes) -> Correction:
    """What `Correction.to_file` wrote.

    Raises:
        BundleError: If it is malformed.
    """
    with well_formed(FILE):
        tensors = safetensors.numpy.load(content)
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim != 1 or bias.ndim != 0 or weight.dtype != np.float32:
            raise ValueError(f"shapes {weight.shape} and {bias.shape}, {weight.dtype}")
    return Correction(weight, float(bias))


class AdaptedScorer:
    """A `reviewguard.inference.scoring.Scorer` over another one, that of an export with two classes."""

    def __init__(self, inner: CpuScorer, correction: Correction, positive: int) -> None:
        """Take what computes the logits, what corrects them, and the index of the positive class."""
        self.inner, self.correction, self.positive = inner, correction, positive
        self.name, self.workers, self.token_budget = f"{inner.name}, adapted", inner.workers, inner.token_budget

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, 2), for int64 (batch, length) inputs. Raises as `CpuScorer.embedded` does.

        Raises:
            BundleError: If the correction is of another width than the embeddings.
        """
        logits, embeddings = self.inner.embedded(batch, alone=alone)
        if embeddings.shape[1:] != self.correction.weight.shape:
            raise BundleError(f"{FILE} corrects embeddings of width {len(self.correction.weight)}, not {embeddings.shape[1]}")
        corrected = logits.copy()
        corrected[:, self.positive] += self.correction.of(embeddings)
        return corrected
