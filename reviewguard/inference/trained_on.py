"""Hashes of the training texts, stored with the model, so that evaluation can report how many texts it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard.bundle.folder import well_formed
from reviewguard.inference.model import TrainedModel

FILE: Final = "trained_on.safetensors"


def to_file(texts: Sequence[str], beside: NDArray[np.uint32] | None = None) -> dict[str, bytes]:
    """Write the hashes to a bundle file: four bytes per distinct text.

    Args:
        texts: Normalised texts.
        beside: Hashes to include in addition.
    """
    hashes = np.unique(np.concatenate([_hashes(texts), *([] if beside is None else [beside])]))
    return {FILE: safetensors.numpy.save({"sha256": hashes})}


def from_file(data: bytes) -> NDArray[np.uint32]:
    """Read the hashes that `to_file` wrote, uint32 (n,), sorted.

    Raises:
        BundleError: If the file is malformed.
    """
    with well_formed(FILE):
        hashes: NDArray[np.uint32] = safetensors.numpy.load(data)["sha256"]
        if hashes.ndim != 1 or hashes.dtype != np.uint32:
            raise ValueError(f"{hashes.dtype} of shape {hashes.shape}")
    return hashes


def seen(trained: TrainedModel, texts: Sequence[str]) -> NDArray[np.bool_] | None:
    """Whether each text was in the training data, compared after normalisation, bool (n,). None: the model stores no hashes.

    With n training texts, the probability that another text is wrongly matched is n / 4,294,967,296.
    """
    if FILE not in trained.files:
        return None
    return np.isin(_hashes(trained.normalized(texts)), from_file(trained.read(FILE)))


def _hashes(texts: Sequence[str]) -> NDArray[np.uint32]:
    """The first four bytes of each text's SHA-256, as a little-endian integer."""
    digests = b"".join(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4] for text in texts)
    return np.frombuffer(digests, dtype="<u4").astype(np.uint32)
