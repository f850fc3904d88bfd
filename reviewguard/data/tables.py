"""Columns of tables: of files, data frames, Arrow tables, datasets, mappings and lists of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from reviewguard.data.rows import FILE_TYPES, File, iter_rows, refuse_repeated
from reviewguard.errors import DataError, nearest

TEXT_COLUMNS: Final = ("text", "review", "review_text", "reviewtext", "text_", "review_body", "body", "content", "comment")
#: A column name with more words is taken to be a text.
_MOST_WORDS: Final = 5
LABEL_COLUMNS: Final = ("label", "labels", "class", "target", "is_fake", "fake")

Data: TypeAlias = Any
"""Data accepted by `train` and `evaluate`: one or several paths, a table (pandas, polars, Arrow, Hugging Face Dataset), a mapping
of columns, a list of rows as mappings, or a pair (texts, labels)."""


def pick_column(names: Iterable[str], wanted: str, usual: Sequence[str], what: str, source: str) -> str:
    """Return the requested column, or the first of the usual names that exists.

    Raises:
        DataError: If there is none; the message lists the columns and the option that selects one.
    """
    names = list(names)
    if wanted:
        if wanted not in names:
            raise DataError(f"{source} has no column {wanted!r}; {nearest(wanted, names)}")
        return wanted
    folded = {name.casefold(): name for name in reversed(names)}
    for candidate in usual:
        if candidate in folded:
            return folded[candidate]
    raise DataError(
        f"no column of {source} looks like the {what}: it has {', '.join(map(repr, names)) or 'no columns'}; "
        f"{_hint(names, usual)}name the column: --{what} COLUMN on the command line, {what}='COLUMN' in Python, or "
        f"data__{what}='COLUMN' for a Classifier"
    )


def _hint(names: list[str], usual: Sequence[str]) -> str:
    """Guess from the column names what is wrong with a file."""
    if len(names) == 1 and (separators := [mark for mark in (";", "\t", "|", ",") if mark in names[0]]):
        return f"the fields seem to be separated by {separators[0]!r}: set --delimiter or data.delimiter; "
    if spaced := [name for name in names if name.strip().casefold() in usual]:
        return f"{spaced[0]!r} has leading or trailing white space: remove it from the header; "
    if any(len(name.split()) > _MOST_WORDS for name in names):
        return "the first row does not look like a header: set --no-header or data.header=false, and name columns 0, 1, ...; "
    return ""


def columns_of(data: Data, only: Callable[[list[str], str], str] | None = None) -> tuple[dict[str, list[Any]], str]:
    """Return the columns by name, and a description of the source.

    Args:
        data: A path or a table.
        only: Function that selects a single column from the names and the source; other columns of a table are not read.

    Raises:
        DataError: If the data is not a readable file or table.
    """
    if isinstance(data, (str, os.PathLike)):
        file = File.of(data)
        data, source = _by_column(iter_rows(file), str(file)), str(file)
    elif isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        data, source = _by_column(data, "the list"), "the list"
    elif isinstance(data, Mapping):
        if type(data).__name__.endswith("DatasetDict"):
            raise DataError(f"got a {type(data).__name__}; pass one of its splits: {', '.join(map(repr, data))}")
        data, source = {str(name): values for name, values in data.items()}, "the mapping"
    else:
        source = f"the {type(data).__name__}"
    names = list(data) if isinstance(data, dict) else names_of(data)
    if names is None or not hasattr(data, "__len__"):
        raise DataError(
            f"cannot read {type(data).__name__}; pass a path ({', '.join(FILE_TYPES)}), a DataFrame, an Arrow table, a Dataset, "
            "a mapping of columns, a list of rows as mappings, or (texts, labels)"
        )
    originals = {str(name): name for name in names}
    refuse_repeated([str(name) for name in names], source)
    if hasattr(data, "with_format"):  # plain Python values instead of tensors or arrays
        data = data.with_format(None)
    if only is not None:
        chosen = only(list(originals), source)
        originals = {chosen: originals[chosen]}
    return {name: _column(data, original) for name, original in originals.items()}, source


def _column(table: Any, name: Any) -> list[Any]:
    column = table[name]
    values: list[Any] = column.to_pylist() if hasattr(column, "to_pylist") else list(column)  # to_pylist: Arrow
    feature: Any = (getattr(table, "features", None) or {}).get(name)
    if hasattr(feature, "int2str"):  # a ClassLabel: integers that stand for names; -1: missing
        return [None if is_null(value) or value < 0 else feature.int2str(value) for value in values]
    return values


def names_of(data: object) -> list[Any] | None:
    """Column names of a table; None if the data is not a table."""
    names = getattr(data, "column_names", None)
    names = getattr(data, "columns", None) if names is None else names
    return None if names is None else list(names)


def _by_column(rows: Iterable[Mapping[str, Any]], source: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    if not columns:
        raise DataError(f"{source} has no rows")
    return columns


def is_null(value: object) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA, that is, not equal to itself (the comparison fails for NA)."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124
    except TypeError:
        return True
    except ValueError:  # an array
        return False
