"""Texts to predict: a sequence of strings, or the text column of a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reviewguard.data.tables import TEXT_COLUMNS, columns_of, names_of, pick_column
from reviewguard.errors import DataError


def texts_of(data: Any, column: str = "") -> list[str]:
    """Return the texts to predict, from a list of strings or from a table.

    Args:
        data: Any iterable of strings, or a table, a mapping of columns or a list of rows as accepted by `read`.
        column: Text column of a table; empty: the first of `TEXT_COLUMNS` that exists.

    Raises:
        DataError: If the data is a single string, or contains a value that is not a string.
    """
    return list(iter_texts(data, column))


def iter_texts(data: Any, column: str = "") -> Iterator[str]:
    """Iterate over the texts of `texts_of`; the elements of an iterable are checked one at a time.

    Raises:
        DataError: As `texts_of`; immediately, unless the error concerns a single text.
    """
    if isinstance(data, (str, bytes, os.PathLike)):
        problem = "is a path; pass texts, or use predict_file" if isinstance(data, os.PathLike) else "is a single string"
        raise DataError(f"texts {problem}; pass a list of texts, such as [text]")
    if (
        isinstance(data, Mapping)
        or names_of(data) is not None
        or (isinstance(data, list) and data and isinstance(data[0], Mapping))
    ):
        columns, _ = columns_of(data, lambda names, source: pick_column(names, column, TEXT_COLUMNS, "text", source))
        (data,) = columns.values()
    elif not isinstance(data, Iterable):
        raise DataError(f"texts is {type(data).__name__} {data!r}; pass a list of texts, such as [text]")
    return _strings(data)


def _strings(values: Iterable[Any]) -> Iterator[str]:
    for row, value in enumerate(values):
        text = value.as_py() if hasattr(value, "as_py") else value
        if not isinstance(text, str):
            raise DataError(f"texts[{row}] is {type(text).__name__} {text!r}; every text must be a string")
        yield text
