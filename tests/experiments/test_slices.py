from __future__ import annotations

import numpy as np

from reviewguard.data.reviews import Reviews
from reviewguard.experiments.slices import slices


def _rows(n: int = 200, **columns: list[object]) -> Reviews:
    """The first text has one word, the second two, and so on."""
    return Reviews(texts=["word " * (number + 1) for number in range(n)], labels=["x"] * n, columns=columns)


def test_length_quartiles_contain_every_row_once() -> None:
    found = slices(_rows())["length in words"]
    assert list(found) == ["1 to 50", "51 to 100", "101 to 150", "151 to 200"]
    assert (np.sum(list(found.values()), axis=0) == 1).all()
    assert [int(mask.sum()) for mask in found.values()] == [50] * 4
    assert found["51 to 100"][50:100].all()


def test_rows_of_equal_length_stay_in_one_slice() -> None:
    texts = ["one two"] * 100 + ["one two three"] * 60 + [None] * 40
    (found,) = slices(Reviews(texts=texts, labels=["x"] * 200)).values()
    assert {name: int(mask.sum()) for name, mask in found.items()} == {"0 to 2": 140, "3 to 3": 60}


def test_columns_with_few_values_become_slices() -> None:
    rows = np.arange(200)
    found = slices(
        _rows(
            language=["en" if row % 2 else "de" for row in rows],
            rating=[float(row % 4) for row in rows],
            gaps=[None if row < 50 else float("nan") if row < 100 else "" if row < 120 else f"v{row % 2}" for row in rows],
            id=[f"row {row}" for row in rows],
            constant=["same"] * 200,
            rare=["usual" if row > 20 else "rare" for row in rows],
            many=[row % 21 for row in rows],
        )
    )
    assert found.keys() == {"length in words", "language", "rating", "gaps"}
    assert {name: int(mask.sum()) for name, mask in found["language"].items()} == {"de": 100, "en": 100}
    assert found["language"]["en"].tolist() == (rows % 2 == 1).tolist()
    assert list(found["rating"]) == ["0.0", "1.0", "2.0", "3.0"]
    assert {name: int(mask.sum()) for name, mask in found["gaps"].items()} == {"v0": 40, "v1": 40}


def test_small_slices_are_omitted() -> None:
    assert slices(_rows(100)) == {}, "a quartile of 25 rows is too small"
    columns = {"kind": [f"k{row % 3 if row % 3 < 2 or row < 60 else 0}" for row in range(120)]}
    found = slices(_rows(120, **columns))
    assert set(found["kind"]) == {"k0", "k1"}
    assert all(mask.sum() >= 30 for masks in found.values() for mask in masks.values())


def test_a_column_called_words_is_not_mistaken_for_the_length() -> None:
    found = slices(_rows(words=["few" if row < 100 else "many" for row in range(200)]))
    assert "1 to 50" in {name for masks in found.values() for name in masks}
    assert {"few", "many"} <= {name for masks in found.values() for name in masks}
