"""Read labelled texts from files, data frames, datasets and plain sequences into one table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import DataConfig
from reviewguard.data.labels import Labels, LabelType, as_type, read_labels, whole_floats, whole_numbers
from reviewguard.data.rows import File, files_of
from reviewguard.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, Data, columns_of, is_null, names_of, pick_column
from reviewguard.errors import DataError


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The class index of each label, int64 (n,); every label must be a class."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """A table of texts and labels, with all other columns of the source.

    Attributes:
        texts: One text per row; None where it is missing.
        labels: One label per row, as a string; None where it is missing or only white space.
        columns: All other columns, by name.
        source: Description of the source, for error messages.
        label_type: Original type of the labels.
        stripped_labels: Number of labels that had leading or trailing white space.
    """

    texts: list[str | None]
    labels: list[str | None]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    source: str = "the data"
    label_type: LabelType = "str"
    stripped_labels: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Reviews:
        """Select rows, in the given order."""
        index = list(rows)
        return replace(
            self,
            texts=[self.texts[i] for i in index],
            labels=[self.labels[i] for i in index],
            columns={name: [values[i] for i in index] for name, values in self.columns.items()},
        )

    def labelled_as(self, label_type: LabelType) -> Reviews:
        """Rewrite the labels in the notation of a model's label type (see `as_type`)."""
        labels = [None if label is None else as_type(label, label_type) for label in self.labels]
        return replace(self, labels=labels, label_type=label_type)

    def require_complete(self, classes: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
        """Return texts and labels after checking that every row is usable; scoring never drops rows.

        Args:
            classes: Allowed labels; None: any.

        Raises:
            DataError: If a row lacks a text or label, or has an unknown label; the message names the first such row or label.
        """
        if not len(self):
            raise DataError(f"{self.source} has no rows")
        for field_name, values in (("text", self.texts), ("label", self.labels)):
            empty = [i for i, value in enumerate(values) if value is None or not value.strip()]
            if empty:
                raise DataError(
                    f"{self.source} has {len(empty)} row(s) without a {field_name}, first at row {empty[0]} (counted from 0); "
                    "rows to be scored are never dropped silently: remove or complete these rows"
                )
        texts = [text for text in self.texts if text is not None]
        labels = [label for label in self.labels if label is not None]
        if classes is not None and (unseen := sorted(set(labels) - set(classes))):
            raise DataError(
                f"{self.source} has labels that the model was not trained on: {', '.join(map(repr, unseen[:10]))}; "
                f"it knows {', '.join(map(repr, classes))}"
            )
        return texts, labels


def concatenate(parts: Sequence[Reviews], source: str) -> Reviews:
    """Concatenate tables; the result keeps the columns that all of them share."""
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    types = {part.label_type for part in parts}
    return Reviews(
        texts=[text for part in parts for text in part.texts],
        labels=[label for part in parts for label in part.labels],
        columns={name: [value for part in parts for value in part.columns[name]] for name in shared},
        source=source,
        label_type=types.pop() if len(types) == 1 else "str",
        stripped_labels=sum(part.stripped_labels for part in parts),
    )


def read(data: Data, *, text: str = "", label: str = "", settings: DataConfig | None = None) -> Reviews:
    """Read labelled texts.

    Args:
        data: A path (of `FILE_TYPES`, or with wildcards), a list of them, a table (pandas, polars, Arrow, a Hugging Face
            Dataset), a mapping of columns, a list of rows as mappings, or a pair (texts, labels).
        text: Column of the texts; empty: the first of `TEXT_COLUMNS` that exists, ignoring case.
        label: Column of the labels; empty: the first of `LABEL_COLUMNS` that exists, ignoring case.
        settings: Layout of CSV and TSV files, for paths that are not a `File`.

    Raises:
        DataError: If the source or a column cannot be used; the message lists the existing columns.
    """
    if isinstance(data, tuple) and len(data) == 2:
        texts, labels = _pair(*data)
        return _reviews(texts, whole_floats(labels), {}, "(texts, labels)")
    if isinstance(data, Reviews):
        return data
    if isinstance(data, (str, os.PathLike)) or (isinstance(data, list) and data and isinstance(data[0], (str, os.PathLike))):
        paths = files_of([data] if isinstance(data, (str, os.PathLike)) else data, settings)
        if len(paths) > 1:
            return concatenate([read(path, text=text, label=label) for path in paths], f"{paths[0]} and {len(paths) - 1} more")
        data = paths[0]
    columns, source = columns_of(data)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of {source} differ in length: {lengths}")
    text_column = pick_column(columns, text, TEXT_COLUMNS, "text", source)
    label_column = pick_column(columns, label, LABEL_COLUMNS, "label", source)
    is_text = isinstance(data, File) and data.is_text
    labels = read_labels(columns[label_column], f"column {label_column!r}")
    return _reviews(
        _texts(columns[text_column], f"column {text_column!r}"),
        whole_numbers(labels) if is_text else whole_floats(labels),
        {name: values for name, values in columns.items() if name not in (text_column, label_column)},
        source,
    )


def read_pair(texts: Iterable[Any], labels: Iterable[Any]) -> Reviews:
    """Read texts and labels without changing the label type: 1.0 stays a float, whereas `read` converts it to 1.

    Raises:
        DataError: As `read`.
    """
    return _reviews(*_pair(texts, labels), {}, "(texts, labels)")


def _pair(texts: Any, labels: Any) -> tuple[list[str | None], Labels]:
    for values in (texts, labels):
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise DataError(f"(texts, labels) must be a pair of lists; it contains {type(values).__name__} {values!r}")
    if (names := names_of(labels)) is not None:
        if len(names) != 1:
            raise DataError(f"labels have the columns {', '.join(map(repr, names))}; pass one column")
        labels = columns_of(labels)[0][str(names[0])]
    texts, labels = list(texts), list(labels)
    if len(texts) != len(labels):
        raise DataError(f"texts and labels differ in length: {len(texts)} and {len(labels)}")
    return _texts(texts, "texts"), read_labels(labels, "labels")


def _reviews(texts: list[str | None], labels: Labels, columns: dict[str, list[Any]], source: str) -> Reviews:
    return Reviews(
        texts=texts,
        labels=labels.values,
        columns=columns,
        source=source,
        label_type=labels.type,
        stripped_labels=labels.stripped,
    )


def _texts(values: Sequence[Any], where: str) -> list[str | None]:
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            texts.append(str(value))
        elif is_null(value):
            texts.append(None)
        else:
            raise DataError(f"{where}, row {row} (counted from 0): a text must be a string, got {type(value).__name__} {value!r}")
    return texts
