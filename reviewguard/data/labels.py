"""Labels: read as what they are, kept as strings with the type that they had."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.normalize import encodable
from reviewguard.errors import DataError

LabelType: TypeAlias = Literal["str", "int", "bool", "float"]
"""What a model's labels are outside of files."""

_TYPES: Final = "a label is a str, int, bool or float"
_ONE_LABEL: Final = "a row has one label; multi-label data is not supported"
_WHOLE: Final = re.compile(r"(-?)(0|[1-9][0-9]{0,17})(\.0+)?", re.ASCII)


class Labels(NamedTuple):
    """Labels as strings, with the type that they had.

    Attributes:
        values: One a row; None where there is none.
        type: Of all of them.
        stripped: Rows whose label lost white space at its ends.
    """

    values: list[str | None]
    type: LabelType
    stripped: int = 0


def read_labels(values: Iterable[Any], where: str) -> Labels:
    """Labels of any kind that clearly is one: str, int, bool, float, UTF-8 bytes, an Enum's value, or an array of one of them.

    White space at the ends of strings is removed and counted.

    Args:
        values: One a row; None, NaN and empty strings are missing labels.
        where: For messages.

    Raises:
        DataError: If a value is none of these, or the types differ.
    """
    found: list[Any] = []
    stripped = 0
    for row, value in enumerate(values):
        plain = _plain(value, f"{where}, row {row} (counted from 0)")
        if isinstance(plain, str):
            stripped += plain != plain.strip()
            plain = encodable(plain.strip()) or None
        found.append(plain)
    types = {type(value) for value in found} - {type(None)}
    if types == {int, float}:
        types, found = {float}, [None if value is None else float(value) for value in found]
    if len(types) > 1:
        names = " and ".join(sorted(one.__name__ for one in types))
        raise DataError(f"{where} mix types: {names}; give all labels one type, for example by str(label)")
    # A bool's string is "True", a float's the shortest that gives it back.
    return Labels([None if value is None else str(value) for value in found], _type_of(types), stripped)


def read_weights(values: Iterable[float], rows: int) -> NDArray[np.float64]:
    """Weights of rows, float64 (n,).

    Args:
        values: One a row.
        rows: n.

    Raises:
        DataError: If they are not one number for each row, finite and not negative.
    """
    try:
        weight = np.array(list(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample_weight is a number for each row; {error}") from error
    if weight.shape != (rows,):
        raise DataError(f"sample_weight has the shape {weight.shape}, and there are {rows} rows; give one number for each")
    if len(wrong := np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))):
        raise DataError(f"sample_weight[{wrong[0]}] is {weight[wrong[0]]}; a weight is finite and not negative")
    return weight


def whole_floats(labels: Labels) -> Labels:
    """Of a column in a file or a table: floats that are all whole become ints, since gaps turn ints into floats there."""
    if labels.type != "float":
        return labels
    numbers = [None if value is None else float(value) for value in labels.values]
    if not all(number is None or number.is_integer() for number in numbers):
        return labels
    return labels._replace(values=[None if number is None else str(int(number)) for number in numbers], type="int")


def whole_numbers(labels: Labels) -> Labels:
    """Of a column of text, as in CSV: strings that all are whole numbers, such as "1" and "1.0", become ints."""
    matches = [None if value is None else _WHOLE.fullmatch(value) for value in labels.values]
    given = [match for match, value in zip(matches, labels.values, strict=True) if value is not None]
    if not given or not all(given):
        return labels
    return labels._replace(values=[match and str(int(match[1] + match[2])) for match in matches], type="int")


def ordered(labels: Iterable[str], label_type: LabelType) -> list[str]:
    """Different labels in the order that `np.unique` gives to their values."""
    distinct = sorted(set(labels))
    return [distinct[index] for index in np.argsort(restored(distinct, label_type), kind="stable")]


def restored(labels: Sequence[str], label_type: LabelType) -> NDArray[Any]:
    """Labels in their type: the array (n,) that their strings were made from."""
    if label_type == "bool":
        return np.array([label == "True" for label in labels])
    numbers = {"int": int, "float": float}
    return np.array([numbers[label_type](label) for label in labels] if label_type in numbers else list(labels))


def as_type(label: str, label_type: LabelType) -> str:
    """A label of other rows as a model with labels of this type writes it: of floats 1 is "1.0", of ints 1.0 is "1"."""
    if label_type in ("int", "float") and (match := _WHOLE.fullmatch(label)):
        whole = int(match[1] + match[2])
        return str(whole if label_type == "int" else float(whole))
    return label


def _type_of(types: set[type]) -> LabelType:
    names: dict[type, LabelType] = {int: "int", bool: "bool", float: "float"}
    return names.get(next(iter(types), str), "str")


def _plain(value: object, where: str) -> str | int | bool | float | None:  # noqa: PLR0911 - one kind of value a return
    """The label that a value is; None where it is missing."""
    if isinstance(value, Enum):
        return _plain(value.value, where)
    if hasattr(value, "as_py"):  # an Arrow scalar
        return _plain(value.as_py(), where)
    # Arrays and tensors; NumPy's own numbers and strings are of no dimension.
    if hasattr(value, "shape") and hasattr(value, "item"):
        shape = tuple(value.shape)
        if shape not in ((), (1,)):
            raise DataError(f"{where}: got an array of shape {shape}; {_ONE_LABEL}")
        inner, dtype = value.item(), getattr(value, "dtype", None)
        # Dates in nanoseconds come out as ints.
        if isinstance(inner, (str, bytes, bool, int, float)) and getattr(dtype, "kind", None) not in ("m", "M"):
            return _plain(inner, where)
        raise DataError(f"{where}: got an array of {dtype or type(inner)}; {_TYPES}")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: a label in bytes is UTF-8; got {value!r}") from error
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    # Subclasses, so that str() gives the label and not what the subclass makes of it.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return None if value != value else float(value)  # noqa: PLR0124
    what = _ONE_LABEL if isinstance(value, (list, tuple, set, frozenset, dict)) else _TYPES
    raise DataError(f"{where}: got {type(value).__name__} {str(value)[:80]!r}; {what}")
