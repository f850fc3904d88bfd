"""Add predictions to an Arrow table."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from reviewguard.inference.model import TrainedModel
from reviewguard.inference.streaming import added, added_columns, text_column

#: Types of the added columns; scores are float32.
TYPES: Final = {
    "predicted_label": pa.string(),
    "decision": pa.string(),
    "truncated": pa.bool_(),
    "out_of_distribution": pa.bool_(),
    "error": pa.string(),
}


def predicted(trained: TrainedModel, table: pa.Table, text: str, source: str) -> pa.Table:
    """Add the columns of `added_columns` to a table. Without a usable text, `error` contains the reason and the others are null.

    Args:
        trained: Trained model.
        table: Table with a text column.
        text: Name of the text column. Empty: as in training.
        source: Origin of the table, for messages.

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
    """Convert a column to Python objects. Strings that are not UTF-8, which Parquet may contain, become bytes."""
    try:
        objects: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]
    return objects


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value
