"""Splits that a column of the data assigns."""

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
    """The name of the split that a value of a column means, such as "validation" for "dev"; other values as they are."""
    return _ALIASES.get(str(value).casefold(), str(value))


def column_split(values: Sequence[Any], column: str) -> list[SplitName]:
    """Read a column that assigns rows to train, validation and test.

    Raises:
        DataError: If a value is none of the known names.
    """
    unknown = sorted({str(value) for value in values if str(value).casefold() not in _ALIASES})
    if unknown:
        raise DataError(
            f"column {column!r} should assign rows to a split, with values of {', '.join(_ALIASES)}; it also holds "
            f"{', '.join(map(repr, unknown[:5]))}. If it means something else, pass data.split= (empty)"
        )
    return [_ALIASES[str(value).casefold()] for value in values]


def only(reviews: Reviews, column: str, split: str) -> Reviews:
    """The rows that a column of splits assigns to one of them.

    Raises:
        DataError: If there is no such column, or no such row.
    """
    if column not in reviews.columns:
        raise DataError(f"{reviews.source} has no column {column!r} to take the split {split!r} from")
    sides = [side_of(value) for value in reviews.columns[column]]
    if side_of(split) not in sides:
        raise DataError(f"no row of {reviews.source} is in split {split!r}; {nearest(split, set(sides))}")
    return reviews.take(row for row, side in enumerate(sides) if side == side_of(split))
