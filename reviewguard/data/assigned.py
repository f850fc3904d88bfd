"""Splits that are assigned by a column of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from reviewguard.data.reviews import Reviews
from reviewguard.errors import DataError, nearest

SplitName = Literal["train", "validation", "test"]
_NAMES: Final[dict[SplitName, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_ALIASES: Final = {alias: name for name, aliases in _NAMES.items() for alias in aliases}


def side_of(value: object) -> str:
    """Map a column value to the name of its split, such as "dev" to "validation"; other values are returned unchanged."""
    return _ALIASES.get(str(value).casefold(), str(value))


def column_split(values: Sequence[Any], column: str) -> list[SplitName]:
    """Read a column that assigns rows to train, validation and test.

    Raises:
        DataError: If a value is not a known split name.
    """
    unknown = sorted({str(value) for value in values if str(value).casefold() not in _ALIASES})
    if unknown:
        raise DataError(
            f"column {column!r} should assign rows to a split, with the values {', '.join(_ALIASES)}; it also holds "
            f"{', '.join(map(repr, unknown[:5]))}. If the column means something else, set data.split= (empty)"
        )
    return [_ALIASES[str(value).casefold()] for value in values]


def only(reviews: Reviews, column: str, split: str) -> Reviews:
    """The rows that a split column assigns to one split.

    Raises:
        DataError: If the column does not exist, or no row is in the split.
    """
    if column not in reviews.columns:
        raise DataError(f"{reviews.source} has no column {column!r} to select the split {split!r} by")
    names = [side_of(value) for value in reviews.columns[column]]
    if side_of(split) not in names:
        raise DataError(f"no row of {reviews.source} is in split {split!r}; {nearest(split, set(names))}")
    return reviews.take(row for row, name in enumerate(names) if name == side_of(split))
