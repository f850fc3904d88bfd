"""The validation rows of training, kept with the model as logits, so that decisions can be set without the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard.bundle import VALIDATION, well_formed
from reviewguard.errors import DataError
from reviewguard.fitted import Fitted
from reviewguard.scoring import Floats


class HeldOut(NamedTuple):
    """Rows that decisions are set on.

    Attributes:
        logits: Of a model, float32 (n, classes).
        y: Class indices, int64 (n,).
        words: Of each text, int64 (n,); None where an earlier version of reviewguard kept the rows.
        groups: Of each row; None where none are named.
    """

    logits: Floats
    y: NDArray[np.int64]
    words: NDArray[np.int64] | None
    groups: list[str] | None = None


def to_file(rows: HeldOut) -> dict[str, bytes]:
    """The file of a bundle."""
    tensors = {"logits": rows.logits, "y": rows.y, "words": rows.words}
    kept = {name: np.ascontiguousarray(values) for name, values in tensors.items() if values is not None}
    return {VALIDATION: safetensors.numpy.save(kept)}


def kept(fitted: Fitted) -> HeldOut:
    """What `to_file` wrote.

    Raises:
        BundleError: If the file is malformed.
        DataError: If the model was trained without validation rows.
    """
    if VALIDATION not in fitted.files:
        raise DataError(
            "this model keeps no validation rows (`fit` and `adapt` have none); pass labelled rows that it was not trained on"
        )
    with well_formed(VALIDATION):
        tensors = safetensors.numpy.load(fitted.read(VALIDATION))
        logits, y = tensors["logits"], tensors["y"]
        words = tensors.get("words")
        shapes = [y.shape] if words is None else [y.shape, words.shape]
        if logits.shape != (len(y), len(fitted.manifest.classes)) or not len(y) or set(shapes) != {(len(y),)}:
            raise ValueError(f"shapes {logits.shape} and {', '.join(map(str, shapes))}")
    return HeldOut(logits, y, words)
