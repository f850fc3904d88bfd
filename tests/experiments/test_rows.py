"""The rows of an experiment: training, validation and scored rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reviewguard.config import DataConfig
from reviewguard.data.near import fold
from reviewguard.data.reviews import Reviews, read
from reviewguard.errors import DataError
from reviewguard.experiments.rows import Source, digest, divide_source, name_of, pool, unseen

PARTS = ("train", "validation", "scored")


def _reviews(n: int = 200, **columns: list[object]) -> Reviews:
    """Unrelated texts; every other one is fake."""
    words = np.random.default_rng(0).choice([f"word{number}" for number in range(4000)], (n, 15))
    labels = ["fake" if number % 2 else "real" for number in range(n)]
    return Reviews(texts=[" ".join(row) for row in words], labels=labels, columns=columns, source="the rows")


def _texts(source: Source) -> dict[str, list[str]]:
    return {name: [text or "" for text in getattr(source, name).texts] for name in PARTS}


def test_a_column_of_splits_is_respected() -> None:
    split = ["Train"] * 120 + ["dev"] * 30 + ["test"] * 50
    reviews = _reviews(split=split)
    found = _texts(divide_source(reviews, DataConfig(), "it"))
    assert found == {"train": reviews.texts[:120], "validation": reviews.texts[120:150], "scored": reviews.texts[150:]}


def test_unusable_training_rows_are_dropped_and_scored_ones_never() -> None:
    reviews = _reviews(split=["train"] * 120 + ["validation"] * 30 + ["test"] * 50)
    for row in (3, 160):
        reviews.texts[row], reviews.labels[row + 1] = " " if row < 120 else None, None
    found = divide_source(reviews, DataConfig(), "it")
    assert found.train.texts == [*reviews.texts[:3], *reviews.texts[5:120]]
    assert found.scored.texts == reviews.texts[150:]


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_a_single_held_out_split_is_scored_and_never_validated_on(held_out: str) -> None:
    split = [held_out if number % 5 < 2 else "train" for number in range(200)]
    reviews = _reviews(split=split)
    found = _texts(divide_source(reviews, DataConfig(), "it"))
    of = dict(zip(reviews.texts, split, strict=True))
    assert found["scored"] == [text for text, side in of.items() if side == held_out]
    assert sorted(found["train"] + found["validation"]) == sorted(text for text, side in of.items() if side == "train")
    assert len(found["validation"]) == pytest.approx(12, abs=2)
    assert len(found["train"]) == len(set(found["train"]) - set(found["validation"]))
    no_share = divide_source(reviews, DataConfig(validation=0), "it")
    assert len(no_share.validation) == len(found["validation"]), "a run needs validation rows"


def test_without_a_column_nothing_overlaps() -> None:
    reviews = _reviews()
    shouted = [f"{text.upper()}!" for text in reviews.texts[:40]]
    repeated = Reviews(texts=[*reviews.texts, *shouted, *reviews.texts[:20]], labels=[*reviews.labels, *reviews.labels[:60]])
    found = _texts(divide_source(repeated, DataConfig(near_duplicates=0), "it"))
    folded = {name: {fold(text) for text in texts} for name, texts in found.items()}
    assert sum(map(len, folded.values())) == 200 == len(set.union(*folded.values()))
    assert sum(map(len, found.values())) == 240, "only equal texts are dropped"
    assert {name: len(texts) / 240 for name, texts in found.items()} == pytest.approx(
        {"train": 0.7, "validation": 0.1, "scored": 0.2}, abs=0.05
    )


def test_the_split_of_the_sample_is_deterministic(sample: Path) -> None:
    one, other = (divide_source(read(sample), DataConfig(), name_of(sample)) for _ in range(2))
    assert one == other
    assert one.name == "sample_reviews"
    for name in PARTS:
        labels = Counter(getattr(one, name).labels)
        assert labels["fake"] == pytest.approx(labels["real"], abs=4)


def test_groups_stay_together() -> None:
    found = divide_source(_reviews(group=[f"g{number % 30}" for number in range(200)]), DataConfig(group="group"), "it")
    sides = [set(getattr(found, name).columns["group"]) for name in PARTS]
    assert sum(map(len, sides)) == 30 == len(set.union(*sides))


@pytest.mark.parametrize(
    ("split", "config", "said"),
    [
        (["train"] * 200, DataConfig(), r"column 'split' of it assigns rows to train only; an experiment needs train, and"),
        (["test"] * 100 + ["dev"] * 100, DataConfig(), r"column 'split' of it assigns rows to validation, test only"),
        (["train"] * 199 + ["garden"], DataConfig(), r"column 'split' should assign rows to a split.*'garden'"),
        (["train"] * 200, DataConfig(split="", test=0), r"to score; data\.test is 0"),
        (["train"] * 200, DataConfig(split="", validation=0), r"to score; data\.validation is 0"),
        (["train"] * 200, DataConfig(split="", group="product"), r"the rows has no column 'product' to group by"),
    ],
)
def test_errors_name_the_problem(split: list[object], config: DataConfig, said: str) -> None:
    with pytest.raises(DataError, match=said):
        divide_source(_reviews(split=split), config, "it")


def test_too_few_rows_are_rejected() -> None:
    with pytest.raises(DataError, match="the rows is too small to hold out"):
        divide_source(_reviews(4), DataConfig(), "it")


def test_names() -> None:
    assert name_of("folder/garden.csv") == name_of(Path("folder/garden.jsonl")) == "garden"
    assert name_of({"text": []}) == "the data"
    assert name_of(([], []), "source 2") == "source 2"


def test_pool() -> None:
    sources = [divide_source(_reviews(n, product=["x"] * n), DataConfig(), str(n)) for n in (100, 60)]
    whole = pool(sources, "both")
    assert whole.name == "both"
    for name in PARTS:
        one, other, both = (getattr(source, name) for source in (*sources, whole))
        assert both.texts == one.texts + other.texts
        assert both.labels == one.labels + other.labels
        assert both.columns == {"product": ["x"] * len(both)}
        assert both.source == "both"


def test_unseen_drops_what_training_repeats() -> None:
    trained = Reviews(texts=["The kettle boils.", "a hose, of  sorts!", None], labels=["real", "fake", "real"])
    scored = Reviews(
        texts=["the KETTLE boils", "A hose of sorts", "The kettle boiled.", "a hose", "kettle the boils", None],
        labels=["real", "fake", "real", "fake", "real", "fake"],
        columns={"id": [1, 2, 3, 4, 5, 6]},
    )
    remaining = unseen(scored, trained)
    assert remaining.columns["id"] == [3, 4, 5, 6]
    assert remaining.texts == ["The kettle boiled.", "a hose", "kettle the boils", None]
    assert unseen(scored, trained.take([])) == scored


def test_digests_distinguish_rows() -> None:
    rows = Reviews(texts=["ab", "c", "lone \ud800"], labels=["x", "y", "x"])
    other = [
        {"a": rows, "b": rows},
        {"b": rows},
        {"a": rows.take([1, 0, 2])},
        {"a": rows.take([0, 1])},
        {"a": Reviews(texts=["a", "bc", "lone \ud800"], labels=["x", "y", "x"])},
        {"a": Reviews(texts=["abx", "c", "lone \ud800"], labels=["", "y", "x"])},
        {"a": Reviews(texts=["ab", "c", "lone \ud800"], labels=["y", "y", "x"])},
        {"a": Reviews(texts=["ab", "d", "lone \ud800"], labels=["x", "y", "x"])},
        {"a": Reviews(texts=["ab", "c", "lone \ud801"], labels=["x", "y", "x"])},
    ]
    digests = {digest({"a": rows}), *map(digest, other)}
    assert len(digests) == 1 + len(other)
    assert digest({"a": rows}) == digest({"a": Reviews(texts=list(rows.texts), labels=list(rows.labels), source="elsewhere")})
