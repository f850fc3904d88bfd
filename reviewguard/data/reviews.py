"""Read labelled texts from files, data frames, datasets and plain sequences into one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import DataConfig
from reviewguard.data.labels import Labels, LabelType, as_type, read_labels, whole_floats, whole_numbers
from reviewguard.data.rows import FILE_TYPES, File, files_of, iter_rows, refuse_repeated
from reviewguard.errors import DataError, nearest

TEXT_COLUMNS: Final = ("text", "review", "review_text", "reviewtext", "text_", "review_body", "body", "content", "comment")
#: A longer name is a text.
_MOST_WORDS: Final = 5
LABEL_COLUMNS: Final = ("label", "labels", "class", "target", "is_fake", "fake")

Data: TypeAlias = Any
"""What `train` and `evaluate` accept: a path or several, a table (pandas, polars, Arrow, a Hugging Face Dataset), columns by
name, a list of rows as mappings, or (texts, labels)."""


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The index of each label's class, int64 (n,); every label must be a class."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Texts with labels and whatever other columns came along, row by row.

    Attributes:
        texts: One text a row; None where the source had none.
        labels: One label a row, as a string; None where the source had none, or only white space.
        columns: Every other column by name.
        source: Where the rows came from, for messages.
        label_type: What the labels were before they became strings.
        stripped_labels: Rows whose label lost white space at its ends.
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
        """The given rows, in the given order."""
        index = list(rows)
        return replace(
            self,
            texts=[self.texts[i] for i in index],
            labels=[self.labels[i] for i in index],
            columns={name: [values[i] for i in index] for name, values in self.columns.items()},
        )

    def labelled_as(self, label_type: LabelType) -> Reviews:
        """The same rows with labels as a model with labels of this type writes them (see `as_type`)."""
        labels = [None if label is None else as_type(label, label_type) for label in self.labels]
        return replace(self, labels=labels, label_type=label_type)

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
            empty = [i for i, value in enumerate(values) if value is None or not value.strip()]
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
        text: Column of the texts; empty: the first of `TEXT_COLUMNS` that is there, case ignored.
        label: Column of the labels; empty: the first of `LABEL_COLUMNS` that is there.
        settings: How a CSV or TSV file is written, if the path alone is given and not a `File`.

    Raises:
        DataError: If the source or a column cannot be used; the message lists what is there.
    """
    if isinstance(data, tuple) and len(data) == 2:
        texts, labels = _pair(*data)
        return _reviews(texts, whole_floats(labels), {}, "(texts, labels)")
    if isinstance(data, Reviews):
        return data
    if isinstance(data, (str, os.PathLike)) or (isinstance(data, list) and data and isinstance(data[0], (str, os.PathLike))):
        given = files_of([data] if isinstance(data, (str, os.PathLike)) else data, settings)
        if len(given) > 1:
            return concatenate([read(one, text=text, label=label) for one in given], f"{given[0]} and {len(given) - 1} more")
        data = given[0]
    columns, source = columns_of(data)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of {source} differ in length: {lengths}")
    text_column = pick_column(columns, text, TEXT_COLUMNS, "text", source)
    label_column = pick_column(columns, label, LABEL_COLUMNS, "label", source)
    is_text = isinstance(data, File) and data.is_text
    found = read_labels(columns[label_column], f"column {label_column!r}")
    return _reviews(
        _texts(columns[text_column], f"column {text_column!r}"),
        whole_numbers(found) if is_text else whole_floats(found),
        {name: values for name, values in columns.items() if name not in (text_column, label_column)},
        source,
    )


def read_pair(texts: Iterable[Any], labels: Iterable[Any]) -> Reviews:
    """Texts and labels, row by row, labels in the type that they have: 1.0 stays a float, where `read` makes 1 of it.

    Raises:
        DataError: As `read`.
    """
    return _reviews(*_pair(texts, labels), {}, "(texts, labels)")


def _pair(texts: Any, labels: Any) -> tuple[list[str | None], Labels]:
    for values in (texts, labels):
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise DataError(f"(texts, labels) is a pair of lists; got {type(values).__name__} {values!r} in it")
    if (names := names_of(labels)) is not None:
        if len(names) != 1:
            raise DataError(f"labels have the columns {', '.join(map(repr, names))}; pass one of them")
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
        f"{_hint(names, usual)}name one: --{what} COLUMN on the command line; in Python {what}='COLUMN', of a Classifier "
        f"data__{what}='COLUMN'"
    )


def _hint(names: list[str], usual: Sequence[str]) -> str:
    """What may be wrong with a file whose columns have such names."""
    if len(names) == 1 and (separators := [one for one in (";", "\t", "|", ",") if one in names[0]]):
        return f"the file seems to separate its fields by {separators[0]!r}: set that with --delimiter or data.delimiter; "
    if spaced := [name for name in names if name.strip().casefold() in usual]:
        return f"{spaced[0]!r} has white space around it: remove that from the header; "
    if any(len(name.split()) > _MOST_WORDS for name in names):
        return "the first row seems to be no header: say so with --no-header or data.header=false, and columns are 0, 1, ...; "
    return ""


def columns_of(data: Data, only: Callable[[list[str], str], str] | None = None) -> tuple[dict[str, list[Any]], str]:
    """Columns by name, and where they come from.

    Args:
        data: A path or a table.
        only: Chooses the one column that is wanted, by the names and the source; the others of a table are not read.

    Raises:
        DataError: If the data are no file and no table that can be read.
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
    called = {str(name): name for name in names}
    refuse_repeated([str(name) for name in names], source)
    if hasattr(data, "with_format"):  # tensors and arrays are for models
        data = data.with_format(None)
    if only is not None:
        chosen = only(list(called), source)
        called = {chosen: called[chosen]}
    return {name: _column(data, own) for name, own in called.items()}, source


def _column(table: Any, name: Any) -> list[Any]:
    column = table[name]
    values: list[Any] = column.to_pylist() if hasattr(column, "to_pylist") else list(column)  # the former of Arrow
    feature: Any = (getattr(table, "features", None) or {}).get(name)
    if hasattr(feature, "int2str"):  # a ClassLabel: numbers that stand for names, and -1 for none
        return [None if is_null(value) or value < 0 else feature.int2str(value) for value in values]
    return values


def names_of(data: object) -> list[Any] | None:
    """Names of a table's columns; None: it is no table."""
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


def texts_of(data: Any, column: str = "") -> list[str]:
    """Texts to be predicted: a list of strings, or a table's column of them.

    Args:
        data: Any iterable of strings, or a table, a mapping of columns or a list of rows as `read` takes them.
        column: Of a table; empty: the first of `TEXT_COLUMNS` that is there.

    Raises:
        DataError: If there is a single string in place of them, or something other than strings among them.
    """
    return list(iter_texts(data, column))


def iter_texts(data: Any, column: str = "") -> Iterator[str]:
    """The texts of `texts_of`, one at a time; of an iterable, each is checked when it is its turn.

    Raises:
        DataError: As `texts_of`; at once, where it is not about one of the texts.
    """
    if isinstance(data, (str, bytes, os.PathLike)):
        what = "is a path; pass texts, or use predict_file" if isinstance(data, os.PathLike) else "is a single string"
        raise DataError(f"texts {what}; pass a list of texts, such as [text]")
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
