"""Read labelled texts from files, data frames, datasets and plain sequences into one table."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.normalize import encodable
from reviewguard.data.rows import STREAMED, iter_rows, refuse_repeated
from reviewguard.errors import DataError, nearest, requires

TEXT_COLUMNS: Final = ("text", "review", "review_text", "reviewtext", "text_", "review_body", "body", "content", "comment")
LABEL_COLUMNS: Final = ("label", "labels", "class", "target", "is_fake", "fake")
FILE_TYPES: Final = (*STREAMED, ".parquet")

Data: TypeAlias = Any
"""What `train` and `evaluate` accept: a path, a pandas DataFrame, a Hugging Face Dataset, columns by name, or (texts, labels)."""


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The index of each label's class, int64 (n,); every label must be a class."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Texts with labels and whatever other columns came along, row by row.

    Attributes:
        texts: One text a row; None where the source had none.
        labels: One label a row, as a string; None where the source had none.
        columns: Every other column by name.
        source: Where the rows came from, for messages.
    """

    texts: list[str | None]
    labels: list[str | None]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    source: str = "the data"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Reviews:
        """The given rows, in the given order."""
        index = list(rows)
        return Reviews(
            texts=[self.texts[i] for i in index],
            labels=[self.labels[i] for i in index],
            columns={name: [values[i] for i in index] for name, values in self.columns.items()},
            source=self.source,
        )

    def require_complete(self, classes: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
        """Texts and labels of rows that must all be usable: nothing is dropped from data that is scored.

        Args:
            classes: The only labels allowed; None: any.

        Raises:
            DataError: Naming the first rows that lack a text or label, or whose label is unknown.
        """
        if not len(self):
            raise DataError(f"{self.source} has no rows")
        for what, values in (("text", self.texts), ("label", self.labels)):
            empty = [i for i, value in enumerate(values) if value is None]
            if empty:
                raise DataError(
                    f"{self.source} has {len(empty)} row(s) without a {what}, first at row {empty[0]} (counted from 0); "
                    "data to be scored is never dropped in silence: remove or fill these rows"
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
    """Rows one after another, with the columns that all of them have."""
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return Reviews(
        texts=[text for part in parts for text in part.texts],
        labels=[label for part in parts for label in part.labels],
        columns={name: [value for part in parts for value in part.columns[name]] for name in shared},
        source=source,
    )


def read(data: Data, *, text: str = "", label: str = "") -> Reviews:
    """Read labelled texts.

    Args:
        data: A path (.csv, .tsv, .jsonl, .ndjson, .parquet), a pandas DataFrame, a Hugging Face Dataset, a mapping of
            columns, or a pair (texts, labels).
        text: Column of the texts; empty: the first of `TEXT_COLUMNS` that is there, case ignored.
        label: Column of the labels; empty: the first of `LABEL_COLUMNS` that is there.

    Raises:
        DataError: If the source or a column cannot be used; the message lists what is there.
    """
    if isinstance(data, tuple) and len(data) == 2:
        for values in data:
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise DataError(f"(texts, labels) is a pair of lists; got {type(values).__name__} {values!r} in it")
        texts, labels = list(data[0]), list(data[1])
        if len(texts) != len(labels):
            raise DataError(f"texts and labels differ in length: {len(texts)} and {len(labels)}")
        return Reviews(texts=_texts(texts, "texts"), labels=_labels(labels), source="(texts, labels)")
    columns, source = _columns(data)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of {source} differ in length: {lengths}")
    text_column = pick_column(columns, text, TEXT_COLUMNS, "text", source)
    label_column = pick_column(columns, label, LABEL_COLUMNS, "label", source)
    return Reviews(
        texts=_texts(columns[text_column], f"column {text_column!r}"),
        labels=_labels(columns[label_column]),
        columns={name: values for name, values in columns.items() if name not in (text_column, label_column)},
        source=source,
    )


def pick_column(names: Iterable[str], wanted: str, usual: Sequence[str], what: str, source: str) -> str:
    """The column asked for, or the first usual name that is there.

    Raises:
        DataError: If there is none; the message lists the columns and the option that names one.
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
        f"name one with data.{what}=COLUMN (in Python: data__{what}='COLUMN')"
    )


def _columns(data: Data) -> tuple[dict[str, list[Any]], str]:
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        return (_parquet(path) if path.suffix.casefold() == ".parquet" else _streamed(path)), str(path)
    if isinstance(data, Mapping):
        if type(data).__name__.endswith("DatasetDict"):
            raise DataError(f"got a {type(data).__name__}; pass one of its splits: {', '.join(map(repr, data))}")
        return {str(name): list(values) for name, values in data.items()}, "the mapping"
    names = getattr(data, "column_names", None)
    if names is None:
        names = getattr(data, "columns", None)
    if names is None:
        raise DataError(
            f"cannot read {type(data).__name__}; pass a path ({', '.join(FILE_TYPES)}), a DataFrame, a Dataset, "
            "a mapping of columns, or (texts, labels)"
        )
    refuse_repeated([str(name) for name in names], f"the {type(data).__name__}")
    columns = {str(name): list(data[name]) for name in names}
    for name, feature in (getattr(data, "features", None) or {}).items():
        if hasattr(feature, "int2str"):  # a ClassLabel: numbers that stand for names
            columns[name] = [value if is_null(value) or value < 0 else feature.int2str(value) for value in columns[name]]
    return columns, f"the {type(data).__name__}"


def _streamed(path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(iter_rows(path)):
        for name in row:
            if name not in columns:
                columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
    if not columns:
        raise DataError(f"{path} has no rows")
    return columns


def _parquet(path: Path) -> dict[str, list[Any]]:
    with requires("train"):
        from pyarrow import parquet
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return columns


def is_null(value: object) -> bool:
    """Whether a value is None, or one that does not equal itself: NaN, NaT, and pandas' NA, which refuses to say."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124
    except TypeError:
        return True
    except ValueError:  # an array
        return False


def _texts(values: Sequence[Any], where: str) -> list[str | None]:
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            texts.append(str(value))
        elif is_null(value):
            texts.append(None)
        else:
            raise DataError(f"{where}, row {row} (counted from 0): a text is a string, got {type(value).__name__} {value!r}")
    return texts


def _labels(values: Iterable[Any]) -> list[str | None]:
    labels: list[str | None] = []
    for value in values:
        if is_null(value) or (isinstance(value, str) and not value):
            labels.append(None)
        elif isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) and float(value).is_integer():
            labels.append(str(int(float(value))))  # a column of 0 and 1 with gaps reads as 0.0 and 1.0
        else:
            labels.append(encodable(str(value)))
    return labels
