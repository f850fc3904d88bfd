"""A table that gains what the model says of its texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from reviewguard.classifier import Classifier
from reviewguard.data.reviews import TEXT_COLUMNS, pick_column
from reviewguard.errors import DataError
from reviewguard.streaming import ADDED, added, trained_on

#: Of the columns that are added; the local engine's, with types.
TYPES: Final = {
    "predicted_label": pa.string(),
    "predicted_score": pa.float32(),
    "decision": pa.string(),
    "truncated": pa.bool_(),
    "unfamiliar": pa.bool_(),
    "error": pa.string(),
}


def text_column(classifier: Classifier, names: Sequence[str], wanted: str, source: str) -> str:
    """The column of texts.

    Raises:
        DataError: If it is not there, or a column of that table has the name of one that is added.
    """
    if taken := [name for name in ADDED if name in names]:
        raise DataError(f"{source} has columns that predictions would overwrite: {', '.join(taken)}; rename or remove them")
    return pick_column(names, wanted or trained_on(classifier), TEXT_COLUMNS, "text", source)


def predicted(classifier: Classifier, table: pa.Table, column: str) -> pa.Table:
    """The table with the columns of `TYPES`. A row without a usable text says so in `error`, and has nulls in the others."""
    texts = values(table[column])
    answers = classifier.stream(text for text in texts if isinstance(text, str))
    rows = [added(text, answers) for text in texts]
    for name, kind in TYPES.items():
        table = table.append_column(name, pa.array([row[name] for row in rows], kind))
    return table


def values(column: pa.ChunkedArray) -> list[Any]:
    """Of a column, as Python objects; a string that is not UTF-8, which Parquet may hold, stays bytes."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]
    return found


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value
