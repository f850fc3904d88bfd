"""Subclasses are read from a separate column."""

from __future__ import annotations

import pytest

from reviewguard.data.reviews import read
from reviewguard.data.subclasses import subclass_indices, subclasses_of
from reviewguard.errors import DataError

ROWS = {
    "text": ["a", "b", "c", "d", "e"],
    "label": ["fake", "real", "fake", "real", "fake"],
    "generator": ["gpt2", None, "glm", float("nan"), "gpt2"],
}


def test_rows_without_a_value_are_a_subclass_of_their_label() -> None:
    reviews = read(ROWS)
    known = subclasses_of(reviews, "generator")
    assert known == [("fake", "glm"), ("fake", "gpt2"), ("real", "")]
    assert subclass_indices(reviews, "generator", known).tolist() == [1, 2, 0, 2, 1]


def test_errors_name_the_column_and_the_subclass() -> None:
    reviews = read(ROWS)
    with pytest.raises(DataError, match="no subclass column 'source'; it has generator"):
        subclasses_of(reviews, "source")
    with pytest.raises(DataError, match="has 'fake' rows whose 'generator' is 'glm', but the training rows have none"):
        subclass_indices(reviews, "generator", [("fake", "gpt2"), ("real", "")])
    with pytest.raises(DataError, match="no other column"):
        subclasses_of(read((["a", "b"], ["x", "y"])), "generator")
