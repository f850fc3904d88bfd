import csv
import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.config import DataConfig
from reviewguard.data.assigned import column_split
from reviewguard.data.reviews import Reviews, read
from reviewguard.data.split import from_csv, make_split, row_hash, to_csv
from reviewguard.errors import ConfigError, DataError

VOCABULARY = [f"word{number}" for number in range(4000)]


def _texts(n: int, seed: int = 0, words: int = 15) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(row) for row in rng.choice(VOCABULARY, (n, words))]


def _reviews(n: int, fake: int = 5, **columns) -> Reviews:
    """Unrelated texts, a fixed share of which is fake."""
    labels = ["real" if number % fake else "fake" for number in range(n)]
    return Reviews(texts=_texts(n), labels=labels, columns=columns, source="the rows")


def _sides(sides, keys) -> dict[object, set[str]]:
    result: dict[object, set[str]] = {}
    for side, key in zip(sides, keys, strict=True):
        result.setdefault(key, set()).add(side)
    return result


@pytest.mark.parametrize(("near_duplicates", "seed"), [(0, 0), (0.8, 42)])
def test_shares_are_stratified(near_duplicates, seed):
    reviews = _reviews(600)
    sides = make_split(reviews, DataConfig(near_duplicates=near_duplicates), seed)
    sizes = Counter(sides)
    assert sizes == pytest.approx({"train": 420, "validation": 60, "test": 120}, abs=6)
    fakes = Counter(side for side, label in zip(sides, reviews.labels, strict=True) if label == "fake")
    for side, size in sizes.items():
        assert fakes[side] / size == pytest.approx(0.2, abs=0.02)


def test_shares_of_the_sample(sample):
    reviews = read(sample)
    sides = make_split(reviews, DataConfig(), 42)
    assert Counter(sides) == pytest.approx({"train": 224, "validation": 32, "test": 64}, abs=4)
    for side in set(sides):
        labels = Counter(label for assigned, label in zip(sides, reviews.labels, strict=True) if assigned == side)
        assert labels["fake"] == pytest.approx(labels["real"], abs=4)


@pytest.mark.parametrize(
    ("test", "validation"),
    [(0.2, 0), (0, 0.1), (0.05, 0.05), (0.02, 0.1), (0.15, 0.15), (0.3, 0.1), (0.4, 0.1), (0.2, 0.6), (0.7, 0.1), (0.33, 0.33)],
)
def test_shares_match_the_settings(test, validation):
    sizes = Counter(make_split(_reviews(400), DataConfig(test=test, validation=validation, near_duplicates=0), 0))
    result = {side: sizes[side] / 400 for side in ("train", "validation", "test")}
    assert result == pytest.approx({"train": 1 - test - validation, "validation": validation, "test": test}, abs=0.04)
    assert ("test" in sizes, "validation" in sizes) == (test > 0, validation > 0)


def test_without_held_out_shares_all_rows_are_train():
    assert set(make_split(_reviews(20), DataConfig(test=0, validation=0), 0)) == {"train"}


@pytest.mark.parametrize(("test", "validation"), [(0.5, 0.5), (0.6, 0.6), (0.9, 0.2)])
def test_shares_without_training_rows_are_refused(test, validation):
    with pytest.raises(ConfigError, match=r"leave no training rows; their sum must be below 1"):
        make_split(_reviews(400), DataConfig(test=test, validation=validation), 0)


def test_the_seed_determines_the_split():
    reviews = _reviews(300)
    first, again, other = (make_split(reviews, DataConfig(near_duplicates=0), seed) for seed in (1, 1, 2))
    assert first == again
    differing = sum(a != b for a, b in zip(first, other, strict=True))
    assert differing > 60


@pytest.mark.parametrize("seed", range(2))
def test_near_duplicates_stay_together(seed):
    originals = _texts(150, words=40)
    texts, keys = [], []
    for number, text in enumerate(originals):
        edited = " ".join([*text.split()[:-1], "kumquat"])
        for variant in (text, text.upper(), f"{text}!", edited)[: 1 + number % 4]:
            texts.append(variant)
            keys.append(number)
    order = np.random.default_rng(seed).permutation(len(texts))
    labels = ["fake" if number % 2 else "real" for number in range(len(texts))]  # near-duplicates of either label
    reviews = Reviews(texts=[texts[i] for i in order], labels=[labels[i] for i in order])
    sides = make_split(reviews, DataConfig(), seed)
    assert all(len(values) == 1 for values in _sides(sides, [keys[i] for i in order]).values())
    assert set(sides) == {"train", "validation", "test"}


def test_case_and_punctuation_never_separate_texts():
    texts = _texts(100)
    reviews = Reviews(texts=texts + [f"{text.upper()}..." for text in texts], labels=["a", "b"] * 100)
    sides = make_split(reviews, DataConfig(near_duplicates=0), 0)
    assert sides[:100] == sides[100:]
    assert set(sides) == {"train", "validation", "test"}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 40), min_size=160, max_size=160), st.integers(0, 1000))
def test_groups_stay_together(groups, seed):
    reviews = _reviews(160, fake=2, product=groups)
    try:
        sides = make_split(reviews, DataConfig(group="product"), seed)
    except DataError:
        assert len(set(groups)) < 16  # few groups may not be enough
        return
    assert all(len(values) == 1 for values in _sides(sides, groups).values())


def test_groups_and_near_duplicates_chain():
    # Row 2k and row 2k+1 share a product; row 2k+1 and row 2k+2 are near-duplicates: chains of ten rows.
    texts, products = [], []
    for chain in range(40):
        words = _texts(6, seed=chain, words=30)
        for link in range(5):
            texts += [words[link], " ".join([*words[link + 1].split()[:-1], "kumquat"])]
            products += [f"{chain}-{link}"] * 2
    reviews = Reviews(texts=texts, labels=["a", "b"] * 200, columns={"product": products})
    sides = make_split(reviews, DataConfig(group="product"), 0)
    assert all(len(values) == 1 for values in _sides(sides, np.repeat(np.arange(40), 10).tolist()).values())
    assert Counter(sides) == pytest.approx({"train": 280, "validation": 40, "test": 80}, abs=20)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_rows_without_a_group_do_not_form_a_group(missing):
    # Two in three rows have no product; as one group, they would all be in the same split.
    products = [f"product {number % 50}" if number % 3 == 0 else missing for number in range(300)]
    sizes = Counter(make_split(_reviews(300, fake=2, product=products), DataConfig(group="product", near_duplicates=0), 0))
    assert sizes == pytest.approx({"train": 210, "validation": 30, "test": 60}, abs=20)


def test_near_duplicates_are_detected_after_normalisation():
    pairs = [f"review {n} of a {n * 7} kettle that boils water {n} times quickly" for n in range(60)]
    texts = [form for text in pairs for form in (text, text.replace("kettle", "ket\u00adtle").replace("water", "wa\u00adter"))]
    sides = make_split(Reviews(texts=texts, labels=["a", "b"] * 60), DataConfig(), 0)
    assert sides[::2] == sides[1::2]


def test_unknown_group_column():
    with pytest.raises(DataError, match="the rows has no column 'products' to group by; it has product"):
        make_split(_reviews(50, product=[1] * 50), DataConfig(group="products"), 0)


@pytest.mark.parametrize(
    ("reviews", "config", "message"),
    [
        (_reviews(6), DataConfig(), r"rarest class, '\w+', has 2 row\(s\)"),
        (_reviews(100, fake=50), DataConfig(), r"rarest class, '\w+', has 2 row\(s\)"),
        (_reviews(100, fake=2, g=[1, 2] * 50), DataConfig(group="g"), "1 independent groups"),
        (Reviews(texts=["the same words"] * 60, labels=["a", "b"] * 30), DataConfig(), "1 independent groups"),
    ],
)
def test_too_few_rows(reviews, config, message):
    with pytest.raises(DataError, match=f"is too small to hold out 0.2 .*{message}.*Add rows, pass validation data"):
        make_split(reviews, config, 0)


def test_incomplete_rows_are_refused():
    with pytest.raises(DataError, match="without a text"):
        make_split(Reviews(texts=["a", None], labels=["x", "y"]), DataConfig(), 0)


@pytest.mark.parametrize("text", ["", "caf\u00e9", " A b\n"])
def test_row_hash(text):
    assert row_hash(text) == hashlib.sha256(text.encode()).hexdigest()


def test_row_hash_of_lone_surrogates():
    assert len({row_hash(text) for text in ("\ud800", "\ud801", "?", "\ufffd")}) == 4


def test_file_round_trip(tmp_path):
    reviews = _reviews(100)
    reviews.texts[0] = "\ud800 with, a comma"
    sides = make_split(reviews, DataConfig(), 0)
    path = tmp_path / "split.csv"
    path.write_text(to_csv(list(zip(reviews.texts, sides, strict=True))), encoding="utf-8")
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["sha256", "split"]
    assert rows[1:] == [[row_hash(text), side] for text, side in zip(reviews.texts, sides, strict=True)]
    assert from_csv(path, reviews.texts) == sides
    assert from_csv(str(path), reviews.texts[::-1]) == sides[::-1]
    assert from_csv(path, ["unknown", reviews.texts[3], reviews.texts[3] + " "]) == [None, sides[3], None]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_split_files_of_other_programs(tmp_path, ending, mark):
    rows = ["split,sha256,note", f"Val,{row_hash('a')},x", f"testing,{row_hash('b')},y", f",{row_hash('c')},z"]
    path = tmp_path / "split.csv"
    path.write_bytes((mark + ending.join(rows)).encode())
    assert from_csv(path, ["a", "b", "c", "d"]) == ["validation", "test", None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the split file"),
        (b"", "lists none of the 1 texts"),
        (b"hash,side\n1,train\n", "columns sha256 and split"),
        (b"sha256,split\n0,train\n", "lists none of the 1 texts; check that it belongs to this data"),
        (b"sha256,split\n%b,learn\n" % row_hash("a").encode(), "'learn'"),
        (b"sha256,split\n\xff,train\n", "cannot read the split file"),
    ],
    ids=["missing", "empty", "other columns", "other data", "bad value", "not UTF-8"],
)
def test_unusable_split_files_are_refused(tmp_path, content, message):
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        from_csv(path, ["a"])


@pytest.mark.parametrize(
    ("side", "aliases"),
    [
        ("train", ["train", "Train", "TRAINING"]),
        ("validation", ["validation", "valid", "val", "dev", "Dev"]),
        ("test", ["test", "TEST", "testing"]),
    ],
)
def test_split_columns_have_aliases(side, aliases):
    assert column_split(aliases, "split") == [side] * len(aliases)


@pytest.mark.parametrize(
    ("value", "shown"), [("holdout", "'holdout'"), ("", "''"), (None, "'None'"), (1, "'1'"), (" train", "' train'")]
)
def test_split_columns_with_other_values_are_refused(value, shown):
    with pytest.raises(DataError, match=f"column 'fold' .*train, training, validation.*also holds {shown}.*data.split="):
        column_split(["train", value, "test"], "fold")
