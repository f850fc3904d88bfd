"""A table that gains what the model says of its texts."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from reviewguard.inference.model import TrainedModel
from reviewguard.inference.streaming import added, added_columns, text_column

#: Of the columns that are added; probabilities of classes have that of the score.
TYPES: Final = {
    "predicted_label": pa.string(),
    "decision": pa.string(),
    "truncated": pa.bool_(),
    "out_of_distribution": pa.bool_(),
    "error": pa.string(),
}


def predicted(trained: TrainedModel, table: pa.Table, text: str, source: str) -> pa.Table:
    """The table with the columns of `added_columns`. A row without a usable text says so in `error`, and has nulls in the others.

    Args:
        trained: Trained.
        table: Any rows and columns.
        text: Column of the texts; empty: as in training.
        source: Where the table came from, for messages.

    Raises:
        DataError: See `reviewguard.inference.streaming.text_column`.
    """
    classes = trained.manifest.classes
    texts = values(table[text_column(table.column_names, text or trained.manifest.text_column, source, classes)])
    rows = added(trained, texts)
    for name in added_columns(classes):
        table = table.append_column(name, pa.array([row[name] for row in rows], TYPES.get(name, pa.float32())))
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
