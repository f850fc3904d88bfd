"""Read labels of any supported type; they are stored as strings, and their type is recorded."""

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
"""Type of a model's labels in Python."""

_TYPES: Final = "a label must be a str, int, bool or float"
_ONE_LABEL: Final = "each row has one label; multi-label data is not supported"
_WHOLE: Final = re.compile(r"(-?)(0|[1-9][0-9]{0,17})(\.0+)?", re.ASCII)


class Labels(NamedTuple):
    """Labels as strings, with their original type.

    Attributes:
        values: One label per row; None where it is missing.
        type: Original type of all labels.
        stripped: Number of labels that had leading or trailing white space.
    """

    values: list[str | None]
    type: LabelType
    stripped: int = 0


def read_labels(values: Iterable[Any], where: str) -> Labels:
    """Read labels of type str, int, bool, float, UTF-8 bytes, Enum, or an array with one such element.

    Leading and trailing white space is removed from strings, and the affected labels are counted.

    Args:
        values: One label per row; None, NaN and empty strings are missing labels.
        where: Description of the source, for error messages.

    Raises:
        DataError: If a value has another type, or the labels have different types.
    """
    labels: list[Any] = []
    stripped = 0
    for row, value in enumerate(values):
        plain = _plain(value, f"{where}, row {row} (counted from 0)")
        if isinstance(plain, str):
            stripped += plain != plain.strip()
            plain = encodable(plain.strip()) or None
        labels.append(plain)
    types = {type(label) for label in labels} - {type(None)}
    if types == {int, float}:
        types, labels = {float}, [None if label is None else float(label) for label in labels]
    if len(types) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in types))
        raise DataError(f"{where} mix types: {names}; give all labels one type, for example by str(label)")
    # str() gives "True" for a bool, and the shortest string that round-trips for a float.
    return Labels([None if label is None else str(label) for label in labels], _type_of(types), stripped)


def read_weights(values: Iterable[float], rows: int) -> NDArray[np.float64]:
    """Read sample weights, float64 (n,).

    Args:
        values: One weight per row.
        rows: Number of rows, n.

    Raises:
        DataError: If there is not exactly one finite, non-negative number per row.
    """
    try:
        weight = np.array(list(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample_weight must hold one number per row; {error}") from error
    if weight.shape != (rows,):
        raise DataError(f"sample_weight has shape {weight.shape}, but there are {rows} rows; pass one number per row")
    if len(wrong := np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))):
        raise DataError(f"sample_weight[{wrong[0]}] is {weight[wrong[0]]}; weights must be finite and not negative")
    return weight


def whole_floats(labels: Labels) -> Labels:
    """Convert floats that are all whole to ints: in files and tables, missing values turn a column of ints into floats."""
    if labels.type != "float":
        return labels
    numbers = [None if value is None else float(value) for value in labels.values]
    if not all(number is None or number.is_integer() for number in numbers):
        return labels
    return labels._replace(values=[None if number is None else str(int(number)) for number in numbers], type="int")


def whole_numbers(labels: Labels) -> Labels:
    """Convert strings that are all whole numbers, such as "1" and "1.0", to ints; for text formats such as CSV."""
    matches = [None if value is None else _WHOLE.fullmatch(value) for value in labels.values]
    present = [match for match, value in zip(matches, labels.values, strict=True) if value is not None]
    if not present or not all(present):
        return labels
    return labels._replace(values=[match and str(int(match[1] + match[2])) for match in matches], type="int")


def ordered(labels: Iterable[str], label_type: LabelType) -> list[str]:
    """Distinct labels, in the order in which `np.unique` sorts their values."""
    distinct = sorted(set(labels))
    return [distinct[index] for index in np.argsort(restored(distinct, label_type), kind="stable")]


def restored(labels: Sequence[str], label_type: LabelType) -> NDArray[Any]:
    """Convert labels from strings to their original type; returns an array (n,)."""
    if label_type == "bool":
        return np.array([label == "True" for label in labels])
    numbers = {"int": int, "float": float}
    return np.array([numbers[label_type](label) for label in labels] if label_type in numbers else list(labels))


def as_type(label: str, label_type: LabelType) -> str:
    """Rewrite a label in the notation of a model's label type: for floats, 1 is "1.0"; for ints, 1.0 is "1"."""
    if label_type in ("int", "float") and (match := _WHOLE.fullmatch(label)):
        whole = int(match[1] + match[2])
        return str(whole if label_type == "int" else float(whole))
    return label


def _type_of(types: set[type]) -> LabelType:
    names: dict[type, LabelType] = {int: "int", bool: "bool", float: "float"}
    return names.get(next(iter(types), str), "str")


def _plain(value: object, where: str) -> str | int | bool | float | None:  # noqa: PLR0911 - one return per type
    """Convert a value to a plain Python label; None where it is missing."""
    if isinstance(value, Enum):
        return _plain(value.value, where)
    if hasattr(value, "as_py"):  # an Arrow scalar
        return _plain(value.as_py(), where)
    # Arrays and tensors; NumPy scalars have shape ().
    if hasattr(value, "shape") and hasattr(value, "item"):
        shape = tuple(value.shape)
        if shape not in ((), (1,)):
            raise DataError(f"{where}: got an array of shape {shape}; {_ONE_LABEL}")
        inner, dtype = value.item(), getattr(value, "dtype", None)
        # item() returns ints for dates in nanoseconds.
        if isinstance(inner, (str, bytes, bool, int, float)) and getattr(dtype, "kind", None) not in ("m", "M"):
            return _plain(inner, where)
        raise DataError(f"{where}: got an array of {dtype or type(inner)}; {_TYPES}")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: labels in bytes must be UTF-8; got {value!r}") from error
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    # Convert subclasses, so that str() returns the plain value rather than a custom representation.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return None if value != value else float(value)  # noqa: PLR0124
    rule = _ONE_LABEL if isinstance(value, (list, tuple, set, frozenset, dict)) else _TYPES
    raise DataError(f"{where}: got {type(value).__name__} {str(value)[:80]!r}; {rule}")
