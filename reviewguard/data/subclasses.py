"""Subclasses: kinds within a class, such as the generators of fakes, that a model learns to tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import Reviews, is_null
from reviewguard.errors import DataError

#: Label and value of the column.
Subclass = tuple[str, str]


def subclasses_of(reviews: Reviews, column: str) -> list[Subclass]:
    """The subclasses of training rows, sorted; rows without a value are a subclass of their label too.

    Raises:
        DataError: If there is no such column.
    """
    return sorted(set(_each(reviews, column)))


def subclass_indices(reviews: Reviews, column: str, known: Sequence[Subclass]) -> NDArray[np.int64]:
    """The index of each row's subclass, int64 (n,).

    Raises:
        DataError: If there is no such column, or a row is of none that is known.
    """
    index, found = {one: i for i, one in enumerate(known)}, _each(reviews, column)
    if unseen := sorted(set(found) - set(known)):
        label, value = unseen[0]
        raise DataError(
            f"{reviews.source} has {label!r} rows whose {column!r} is {value!r}, and the training rows have none; remove them, "
            "or set data.subclass= (empty)"
        )
    return np.array([index[one] for one in found], dtype=np.int64)


def _each(reviews: Reviews, column: str) -> list[Subclass]:
    if column not in reviews.columns:
        raise DataError(
            f"{reviews.source} has no column {column!r} of subclasses; it has {', '.join(reviews.columns) or 'no other column'}"
        )
    _, labels = reviews.require_complete()
    values = ["" if is_null(value) else str(value) for value in reviews.columns[column]]
    return list(zip(labels, values, strict=True))
