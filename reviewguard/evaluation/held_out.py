"""The validation rows of training, kept with the model as logits, so that decisions can be set without the data."""

from __future__ import annotations

from typing import Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from reviewguard.errors import BundleError, DataError
from reviewguard.fitted import Fitted
from reviewguard.scoring import Floats

FILE: Final = "validation.safetensors"


def to_file(logits: Floats, y: NDArray[np.int64]) -> dict[str, bytes]:
    """The file of a bundle: logits, float32 (n, classes), and class indices, int64 (n,)."""
    return {FILE: safetensors.numpy.save({"logits": np.ascontiguousarray(logits), "y": np.ascontiguousarray(y)})}


def kept(fitted: Fitted) -> tuple[Floats, NDArray[np.int64]]:
    """What `to_file` wrote.

    Raises:
        BundleError: If the file is malformed.
        DataError: If the model was trained without validation rows.
    """
    if FILE not in fitted.files:
        raise DataError("this model keeps no validation rows (fit has none); pass labelled rows that it was not trained on")
    try:
        tensors = safetensors.numpy.load(fitted.read(FILE))
        logits, y = tensors["logits"], tensors["y"]
        if logits.shape != (len(y), len(fitted.manifest.classes)) or not len(y):
            raise ValueError(f"shapes {logits.shape} and {y.shape}")
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{FILE} is malformed: {error}") from error
    return logits, y
