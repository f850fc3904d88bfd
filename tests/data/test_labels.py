"""Labels keep their type and order, and invalid labels are refused."""

from __future__ import annotations

import enum
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from reviewguard.data.labels import as_type, ordered, read_labels, restored, whole_floats, whole_numbers
from reviewguard.errors import DataError


class Kind(str, enum.Enum):  # noqa: UP042 - older code uses such enums
    FAKE = "fake"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("values", "strings", "label_type"),
    [
        (["fake", np.str_("real")], ["fake", "real"], "str"),
        ([b"fake", "caf\u00e9".encode()], ["fake", "caf\u00e9"], "str"),
        ([Kind.FAKE, "fake"], ["fake", "fake"], "str"),
        ([Number.ONE, 2], ["1", "2"], "int"),
        ([0, np.int64(7), np.uint8(3)], ["0", "7", "3"], "int"),
        ([True, np.bool_(False)], ["True", "False"], "bool"),
        ([0.5, np.float32(2)], ["0.5", "2.0"], "float"),
        ([1, 0.5], ["1.0", "0.5"], "float"),
        (list(torch.tensor([0, 1])), ["0", "1"], "int"),
        (list(torch.tensor([[0], [1]])), ["0", "1"], "int"),
        (list(np.array([["a"], ["b"]])), ["a", "b"], "str"),
        (list(np.array([["a"], ["b"]], dtype=object)), ["a", "b"], "str"),
        ([np.array(True)], ["True"], "bool"),
        (pa.chunked_array([[3, None]]), ["3", None], "int"),
        (["a", None, float("nan"), np.nan, pd.NA, pd.NaT, "", "  "], ["a", *[None] * 7], "str"),
        ([1, None], ["1", None], "int"),
        ([2**70, 1], [str(2**70), "1"], "int"),
        ([], [], "str"),
    ],
)
def test_labels_of_each_type_are_read(values, strings, label_type):
    result = read_labels(values, "labels")
    assert (result.values, result.type) == (strings, label_type)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], "got list \"['a', 'b']\"; each row has one label; multi-label data is not supported"),
        (("a",), "multi-label"),
        (np.array([0, 1, 1]), "got an array of shape (3,); each row has one label; multi-label"),
        (torch.tensor([[0, 1]]), "got an array of shape (1, 2)"),
        (np.array([], dtype=str), "got an array of shape (0,)"),
        ({"label": 1}, "multi-label"),
        (b"\xff", "labels in bytes must be UTF-8; got b'\\xff'"),
        (object, "got type"),
        (1j, "got complex '1j'; a label must be a str, int, bool or float"),
        (np.datetime64("2026-01-01"), "a label must be a str, int, bool or float"),
        (np.datetime64("2026-01-01", "ns"), "got an array of datetime64[ns]"),
        (pd.Timestamp("2026-01-01"), "got Timestamp"),
    ],
)
def test_invalid_labels_are_refused(value, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_labels(["a", value], "labels")
    assert "labels, row 1 (counted from 0): " in str(caught.value)


def test_mixed_types_are_refused():
    with pytest.raises(DataError, match=r"labels mix types: int and str; give all labels one type, for example by str\(label\)"):
        read_labels([1, "1"], "labels")
    with pytest.raises(DataError, match="bool and int"):
        read_labels([1, True], "labels")


def test_leading_and_trailing_white_space_is_removed_and_counted():
    result = read_labels(["fake ", "fake", "\treal", None, " "], "labels")
    assert result.values == ["fake", "fake", "real", None, None]
    assert result.stripped == 3


def test_whole_floats_in_a_column_become_ints():
    gaps = whole_floats(read_labels([0.0, float("nan"), 1.0, -2.0], "labels"))
    assert gaps == (["0", None, "1", "-2"], "int", 0)
    for values in ([0.5, 1.0], [float("inf"), 1.0], [1, 2], ["1.0"], [None]):
        labels = read_labels(values, "labels")
        assert whole_floats(labels) == labels


def test_whole_numbers_in_a_text_column_become_ints():
    assert whole_numbers(read_labels(["1", "1.0", "-0", "10.00", ""], "labels")) == (["1", "1", "0", "10", None], "int", 0)
    for values in (["1", "a"], ["01"], ["1.5"], ["1e3"], ["\u0661"], ["1" * 19], [""], []):
        labels = read_labels(values, "labels")
        assert whole_numbers(labels) == labels


@pytest.mark.parametrize(
    "values",
    [list(range(-2, 12)), [True, False], [0.5, -1.0, 10.0, 2.0], ["b", "a", "10", "9"], [2**62, 5], ["\u00e9", "z"]],
)
def test_order_and_type_match_numpy(values):
    result = read_labels(np.random.default_rng(0).permutation(np.repeat(values, 3)), "labels")
    back = restored(ordered(result.values, result.type), result.type)
    assert back.tolist() == np.unique(values).tolist()
    assert back.dtype == np.unique(values).dtype


def test_labels_are_rewritten_in_the_notation_of_the_model():
    assert [as_type(label, "int") for label in ("1", "1.0", "a", "0.5")] == ["1", "1", "a", "0.5"]
    assert [as_type(label, "float") for label in ("1", "1.0", "0.5")] == ["1.0", "1.0", "0.5"]
    assert [as_type(label, "str") for label in ("1", "1.0")] == ["1", "1.0"]
    assert as_type("True", "bool") == "True"
