"""Subclasses: kinds within a class, such as the generators of fake reviews, that a model learns to distinguish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import Reviews
from reviewguard.data.tables import is_null
from reviewguard.errors import DataError

#: A label and a value of the subclass column.
Subclass = tuple[str, str]


def subclasses_of(reviews: Reviews, column: str) -> list[Subclass]:
    """The sorted subclasses of training rows; rows without a value form a subclass of their label.

    Raises:
        DataError: If the column does not exist.
    """
    return sorted(set(_each(reviews, column)))


def subclass_indices(reviews: Reviews, column: str, known: Sequence[Subclass]) -> NDArray[np.int64]:
    """The index of each row's subclass, int64 (n,).

    Raises:
        DataError: If the column does not exist, or a row has an unknown subclass.
    """
    index, subclasses = {subclass: i for i, subclass in enumerate(known)}, _each(reviews, column)
    if unseen := sorted(set(subclasses) - set(known)):
        label, value = unseen[0]
        raise DataError(
            f"{reviews.source} has {label!r} rows whose {column!r} is {value!r}, but the training rows have none; remove them, "
            "or set data.subclass= (empty)"
        )
    return np.array([index[subclass] for subclass in subclasses], dtype=np.int64)


def _each(reviews: Reviews, column: str) -> list[Subclass]:
    if column not in reviews.columns:
        raise DataError(
            f"{reviews.source} has no subclass column {column!r}; it has {', '.join(reviews.columns) or 'no other column'}"
        )
    _, labels = reviews.require_complete()
    values = ["" if is_null(value) else str(value) for value in reviews.columns[column]]
    return list(zip(labels, values, strict=True))
