"""Rows for setting decisions: new ones, or the validation rows of training, whose logits are stored with the model."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard.bundle.folder import well_formed
from reviewguard.bundle.manifest import VALIDATION
from reviewguard.data.reviews import class_indices
from reviewguard.data.tables import Data
from reviewguard.data.tokens import word_counts
from reviewguard.errors import DataError, nearest
from reviewguard.inference import trained_on
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.rows import labelled_rows
from reviewguard.inference.scoring import Floats


class HeldOut(NamedTuple):
    """Held-out rows for setting decisions.

    Attributes:
        logits: Logits, float32 (n, classes).
        y: Class indices, int64 (n,).
        words: Number of words of each text, int64 (n,). None: the rows were stored by an earlier version without lengths.
        groups: Group of each row. None: no groups.
    """

    logits: Floats
    y: NDArray[np.int64]
    words: NDArray[np.int64] | None
    groups: list[str] | None = None


def to_file(rows: HeldOut) -> dict[str, bytes]:
    """Write rows to a bundle file."""
    tensors = {"logits": rows.logits, "y": rows.y, "words": rows.words}
    stored = {name: np.ascontiguousarray(values) for name, values in tensors.items() if values is not None}
    return {VALIDATION: safetensors.numpy.save(stored)}


def held_out_rows(trained: TrainedModel, data: Data | None, split: str = "", group: str = "") -> HeldOut:
    """Read and score held-out rows.

    Args:
        trained: Trained model.
        data: Labelled rows that were not used for training. None: the validation rows stored with the model.
        split: Value of the split column; only these rows are used. Empty: all rows.
        group: Name of the group column. Empty: no groups.

    Raises:
        DataError: If a text or label is missing, if there is no such column, or if the model contains no validation rows.

    Warns:
        UserWarning: If the model was trained on some of the texts.
    """
    if data is None:
        if trained.manifest.windows is not None:
            raise DataError("the validation rows stored with this model were not read in windows; pass labelled rows as data")
        if group:
            raise DataError(f"group is {group!r}, but no data were passed; pass labelled rows with that column as data")
        return stored(trained)
    reviews = labelled_rows(trained.manifest, data, split=split)
    if group and group not in reviews.columns:
        raise DataError(f"{reviews.source} has no group column {group!r}; {nearest(group, reviews.columns)}")
    texts, labels = reviews.require_complete(trained.manifest.classes)
    if (seen := trained_on.seen(trained, texts)) is not None and seen.any():
        warnings.warn(
            f"the model was trained on {seen.sum()} of {len(texts)} texts of {reviews.source}; error rates set on them are "
            "optimistic: pass rows that were not used for training",
            stacklevel=4,  # the caller of the method of `Classifier`
        )
    logits, encoded = trained.logits(texts, "scoring")
    return HeldOut(
        logits,
        class_indices(labels, trained.manifest.classes),
        word_counts(encoded),
        [str(value) for value in reviews.columns[group]] if group else None,
    )


def stored(trained: TrainedModel) -> HeldOut:
    """Read the rows that `to_file` wrote.

    Raises:
        BundleError: If the file is malformed.
        DataError: If the model was trained without validation rows.
    """
    if VALIDATION not in trained.files:
        raise DataError(
            "this model contains no validation rows (`fit` and `adapt` store none); pass labelled rows that were not used for "
            "training"
        )
    with well_formed(VALIDATION):
        tensors = safetensors.numpy.load(trained.read(VALIDATION))
        logits, y = tensors["logits"], tensors["y"]
        words = tensors.get("words")
        shapes = [y.shape] if words is None else [y.shape, words.shape]
        if logits.shape != (len(y), len(trained.manifest.classes)) or not len(y) or set(shapes) != {(len(y),)}:
            raise ValueError(f"shapes {logits.shape} and {', '.join(map(str, shapes))}")
    return HeldOut(logits, y, words)
