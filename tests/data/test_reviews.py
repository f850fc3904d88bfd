import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from reviewguard.data.reviews import Reviews, read
from reviewguard.data.tables import LABEL_COLUMNS, TEXT_COLUMNS, pick_column
from reviewguard.data.texts import texts_of
from reviewguard.errors import DataError

TEXTS = ["good, cheap", 'she said "no"\nand left', "caf\u00e9 \U0001f600", ""]
LABELS = ["real", "fake", "fake", "real"]
STARS = ["5", "1", "2", "3"]
ROWS = [{"text": text, "label": label, "stars": stars} for text, label, stars in zip(TEXTS, LABELS, STARS, strict=True)]
COLUMNS = {"text": TEXTS, "label": LABELS, "stars": STARS}


def _delimited(path, delimiter):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def _jsonl(path):
    path.write_text("\n\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return path


def _parquet(path):
    pyarrow.parquet.write_table(pa.table(COLUMNS), path)
    return path


SOURCES = {
    "csv": lambda folder: _delimited(folder / "x.csv", ","),
    "CSV": lambda folder: _delimited(folder / "x.CSV", ","),
    "csv, path as string": lambda folder: str(_delimited(folder / "x.csv", ",")),
    "tsv": lambda folder: _delimited(folder / "x.tsv", "\t"),
    "jsonl": lambda folder: _jsonl(folder / "x.jsonl"),
    "ndjson": lambda folder: _jsonl(folder / "x.ndjson"),
    "parquet": lambda folder: _parquet(folder / "x.parquet"),
    "DataFrame": lambda _: pd.DataFrame(COLUMNS, index=[7, 7, 8, 9]),
    "Dataset": lambda _: datasets.Dataset.from_dict(COLUMNS),
    "mapping": lambda _: COLUMNS,
    "mapping of arrays": lambda _: {name: np.array(values) for name, values in COLUMNS.items()},
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_all_sources_give_the_same_rows(tmp_path, source):
    reviews = read(source(tmp_path))
    assert (reviews.texts, reviews.labels) == (TEXTS, LABELS)
    assert {name: [str(value) for value in values] for name, values in reviews.columns.items()} == {"stars": STARS}
    assert all(type(text) is str for text in reviews.texts + reviews.labels)
    assert len(reviews) == 4


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, tuple, iter])
def test_all_kinds_of_pairs_give_the_same_rows(kind):
    reviews = read((kind(TEXTS), kind(LABELS)))
    assert (reviews.texts, reviews.labels, reviews.columns) == (TEXTS, LABELS, {})


def test_sample(sample):
    reviews = read(sample)
    assert len(reviews) == 320
    assert set(reviews.labels) == {"fake", "real"}
    assert list(reviews.columns) == ["category", "rating"]
    assert reviews.source == str(sample)
    reviews.require_complete(["fake", "real"])


NULLS = [None, float("nan"), np.nan, pd.NA, pd.NaT, np.float32("nan")]


@pytest.mark.parametrize("null", NULLS, ids=repr)
def test_nulls_are_none(null):
    reviews = read(pd.DataFrame({"text": pd.Series(["a", null], dtype=object), "label": pd.Series([null, "b"], dtype=object)}))
    assert (reviews.texts, reviews.labels) == (["a", None], [None, "b"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pd.Series([0, 1, 1]), ["0", "1", "1"]),
        (pd.Series([0.0, 1.0, 1.0]), ["0", "1", "1"]),
        (pd.Series([0, None, 1]), ["0", None, "1"]),
        (pd.Series([0, None, 1], dtype="Int64"), ["0", None, "1"]),
        (pd.Series([0, 1, 1], dtype="float32"), ["0", "1", "1"]),
        (pd.Series([True, False, True]), ["True", "False", "True"]),
        (pd.Series(["a", None, "b"], dtype="category"), ["a", None, "b"]),
        (pd.Series(["a", None, ""], dtype="string"), ["a", None, None]),
        (np.array([0, 1, 1]), ["0", "1", "1"]),
        (np.array([0, 1, 1], dtype=np.float32), ["0", "1", "1"]),
        (np.array([0, 1, np.nan]), ["0", "1", None]),
        ([0.5, 1.0, -1.0], ["0.5", "1.0", "-1.0"]),
        (["0.0", " a ", "1"], ["0.0", "a", "1"]),
    ],
    ids=repr,
)
def test_labels_become_strings(labels, expected):
    texts = ["a", "b", "c"]
    assert read((texts, labels)).labels == expected
    assert read({"text": texts, "label": labels}).labels == expected
    if isinstance(labels, pd.Series):
        assert read(pd.DataFrame({"text": texts, "label": labels})).labels == expected


def test_labels_of_a_parquet_file_and_a_dataset(tmp_path):
    columns = {"text": ["a", None], "label": [1.0, None]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    for data in (tmp_path / "x.parquet", datasets.Dataset.from_dict(columns)):
        reviews = read(data)
        assert (reviews.texts, reviews.labels) == (["a", None], ["1", None])


def test_categorical_texts_and_numbered_columns():
    frame = pd.DataFrame({0: ["a", "b"], "text": pd.Categorical(["x", "x"]), "label": ["l", "m"]})
    reviews = read(frame)
    assert (reviews.texts, reviews.columns) == (["x", "x"], {"0": ["a", "b"]})


def test_string_subclasses_become_strings():
    [text] = read((np.array(["a"]), ["b"])).texts
    assert type(text) is str


@pytest.mark.parametrize("name", TEXT_COLUMNS)
def test_text_columns_are_detected(name):
    other = {"label": ["l"], "note": ["n"]}
    assert read({**other, name.upper(): ["t"]}).texts == ["t"]


@pytest.mark.parametrize("name", LABEL_COLUMNS)
def test_label_columns_are_detected(name):
    assert read({"text": ["t"], "note": ["n"], name.title(): ["l"]}).labels == ["l"]


def test_detection_prefers_the_first_usual_name_and_the_first_column():
    assert pick_column(["body", "review", "text"], "", TEXT_COLUMNS, "text", "x") == "text"
    assert pick_column(["Text", "text"], "", TEXT_COLUMNS, "text", "x") == "Text"


def test_requested_columns_are_used():
    data = {"text": ["t"], "label": ["l"], "title": ["T"], "mark": [3]}
    reviews = read(data, text="title", label="mark")
    assert (reviews.texts, reviews.labels) == (["T"], ["3"])
    assert reviews.columns == {"text": ["t"], "label": ["l"]}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            {"txt": ["a"], "label": ["b"]},
            {},
            "no column of the mapping looks like the text: it has 'txt', 'label'; name the column: --text COLUMN",
        ),
        ({"text": ["a"], "kind": ["b"]}, {}, "looks like the label: it has 'text', 'kind'; .*data__label='COLUMN'"),
        ({}, {}, "no columns"),
        ({"text": ["a"], "label": ["b"]}, {"text": "texte"}, "no column 'texte'; did you mean 'text'. Allowed: label, text"),
        ({"text": ["a"], "label": ["b"]}, {"label": "LABEL_"}, "no column 'LABEL_'.*Allowed: label, text"),
        ({"text": ["a", "b"], "label": ["c"]}, {}, "text.* 2 .*label.* 1|differ in length"),
        ((["a", "b"], ["c"]), {}, "differ in length: 2 and 1"),
        ((["a"], 5), {}, "int"),
        ((["a"], ["b"], ["c"]), {}, r"cannot read tuple; pass a path .*\.csv.*DataFrame.*\(texts, labels\)"),
        (["a"], {}, "cannot read a: No such file or directory"),
        (None, {}, "cannot read NoneType; pass a path"),
        (SimpleNamespace(column_names=None), {}, "cannot read SimpleNamespace"),
        ((["a", 5], ["b", "c"]), {}, "texts, row 1 .*a text must be a string, got int 5"),
        (({"a": 1}.values(), ["b"]), {}, "row 0 .*got int 1"),
        ({"text": [b"a"], "label": ["b"]}, {}, "column 'text', row 0 .*got bytes b'a'"),
        ({"text": [["a"]], "label": ["b"]}, {}, "row 0 .*got list"),
        (([np.array(["a", "b"])], ["b"]), {}, "row 0 .*got ndarray"),
        (pd.DataFrame({"text": ["a"], "label": [0]}), {"text": "label", "label": "text"}, "column 'label', row 0 .*got int 0"),
        (pd.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"]), {}, "same name: 'text'"),
    ],
    ids=lambda value: None if isinstance(value, pd.DataFrame) else repr(value)[:40],
)
def test_unusable_data_is_refused(data, options, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(data, **options)


@pytest.mark.parametrize("kind", [datasets.DatasetDict, datasets.IterableDatasetDict])
def test_dataset_dicts_name_their_splits(kind):
    split = datasets.Dataset.from_dict(COLUMNS)
    if kind is datasets.IterableDatasetDict:
        split = split.to_iterable_dataset()
    data = kind({"train": split, "test": split})
    with pytest.raises(DataError, match="pass one of its splits: 'train', 'test'"):
        read(data)


NUMBERED = "text,label\n" + "a,b\n" * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "has no rows"),
        ("x.csv", b"\n\n", "has no rows"),
        ("x.csv", b"text,label\n", "has no rows"),
        ("x.csv", b"\xef\xbb\xbf", "has no rows"),
        ("x.jsonl", b"", "has no rows"),
        ("x.jsonl", b" \n", "has no rows"),
        ("x.csv", (NUMBERED + "a,b,c\n").encode(), "line 5: 3 fields, but the header has 2.*must be quoted"),
        ("x.csv", (NUMBERED + "a\n").encode(), "line 5: 1 fields, but the header has 2"),
        ("x.tsv", b"text\tlabel\na,b\n", "line 2: 1 fields"),
        ("x.csv", b"text,label,text\na,b,c\n", "same name: 'text'"),
        ("x.csv", (NUMBERED + '"a,b\n').encode(), "line 5: unexpected end"),
        ("x.csv", (NUMBERED + '"a"b,c\n').encode(), "line 5: .*expected"),
        ("x.csv", b"text,label\ncaf\xe9,b\n", "not UTF-8.*convert it"),
        ("x.jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8.*convert it"),
        ("x.csv", "text,label\na,b\n".encode("utf-16"), "not UTF-8.*convert it"),
        ("x.jsonl", b'{"text": "a"}\n\n{"text": \n', "line 3: not JSON"),
        ("x.jsonl", b'{"text": "a"}\n["a"]\n', "line 2: expected a JSON object, got list"),
        ("x.jsonl", b'"a"\n', "line 1: expected a JSON object, got str"),
        ("x.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "line 1: not JSON"),
        ("x.jsonl", b'{"text": "a", "label": ' + b"1" * 5000 + b"}\n", "line 1: not JSON"),
        ("x.jsonl", b'{"text": 5, "label": 1}\n', "column 'text', row 0 .*got int 5"),
        ("x.doc", b"{}", r"ends in '\.doc'.*\.csv, \.tsv, \.jsonl, \.ndjson"),
        ("x", b"", r"ends in ''.*\.csv"),
        ("x.parquet", b"PAR1 or not", "cannot read"),
        ("x.parquet", b"", "cannot read"),
    ],
    ids=lambda value: repr(value)[:36],
)
def test_unusable_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        read(tmp_path / name)
    assert name in str(caught.value) or "column" in str(caught.value)


@pytest.mark.parametrize("name", ["gone.csv", "gone.jsonl", "gone.parquet", "folder.csv"])
def test_missing_files_are_refused(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=f"cannot read .*{name}"):
        read(tmp_path / name)


def test_parquet_with_repeated_column_names(tmp_path):
    pyarrow.parquet.write_table(pa.table([["a"], ["b"], ["c"]], names=["text", "text", "label"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="text"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "\ufefftext,label\r\na,b\r\n"),
        ("x.csv", '\ufeff"text","label"\n"a","b"'),
        ("x.csv", "\n\ntext,label\n\na,b\n\n"),
        ("x.csv", "text,label\ra,b\r"),
        ("x.tsv", "\ufefftext\tlabel\na\tb\n"),
        ("x.jsonl", '\ufeff{"text": "a", "label": "b"}\r\n'),
    ],
)
def test_byte_order_marks_and_line_ends(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    reviews = read(tmp_path / name)
    assert (reviews.texts, reviews.labels) == (["a"], ["b"])


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_a_field_of_a_megabyte(tmp_path, name):
    text = "word, " * 180_000
    content = (
        json.dumps({"text": text, "label": "b"}) if name == "x.jsonl" else f"text{',' if name == 'x.csv' else chr(9)}label\n"
    )
    if name != "x.jsonl":
        content += f'"{text}",b\n' if name == "x.csv" else f"{text}\tb\n"
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name).texts == [text]


def test_reading_only_raises_the_csv_limit(tmp_path):
    previous = csv.field_size_limit(2**40)
    try:
        read(_delimited(tmp_path / "x.csv", ","))
        assert csv.field_size_limit() == 2**40
    finally:
        csv.field_size_limit(previous)


def test_json_rows_may_lack_columns_and_hold_any_character(tmp_path):
    lines = ['{"text": "a", "label": 0}', '{"label": 1, "text": "\\ud800", "stars": 3}', '{"text": null}', '{"text": "b\u2028c"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    reviews = read(tmp_path / "x.jsonl")
    assert reviews.texts == ["a", "\ud800", None, "b\u2028c"]
    assert reviews.labels == ["0", "1", None, None]
    assert reviews.columns == {"stars": [None, 3, None, None]}


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_columns_keep_the_order_of_the_file(tmp_path, ending):
    names = [f"column{number}" for number in range(12)]
    path = tmp_path / f"x{ending}"
    row = ["value"] * 12
    path.write_text(
        ",".join(names) + "\n" + ",".join(row) if ending == ".csv" else json.dumps(dict(zip(names, row, strict=True)))
    )
    with pytest.raises(DataError, match=", ".join(map(repr, names))):
        read(path)


def test_take_keeps_rows_aligned():
    reviews = Reviews(texts=["a", "b", "c"], labels=["x", "y", None], columns={"n": [0, 1, 2]}, source="s")
    assert reviews.take([2, 0, 0]) == Reviews(
        texts=["c", "a", "a"], labels=[None, "x", "x"], columns={"n": [2, 0, 0]}, source="s"
    )


def test_complete_rows_are_returned():
    reviews = Reviews(texts=["a", "b "], labels=["x", "y"])
    assert reviews.require_complete() == reviews.require_complete(["y", "x", "z"]) == (["a", "b "], ["x", "y"])


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "s has no rows"),
        (["a", None, None], ["x", "x", "x"], r"s has 2 row\(s\) without a text, first at row 1 .*remove or complete"),
        (["a", " \n"], ["x", "x"], r"s has 1 row\(s\) without a text, first at row 1 .*remove or complete"),
        (["a", "b"], ["x", None], r"s has 1 row\(s\) without a label, first at row 1 .*remove or complete"),
        (["a", "b", "c"], ["x", "q", "r"], "labels that the model was not trained on: 'q', 'r'; it knows 'x', 'y'"),
    ],
)
def test_incomplete_rows_are_refused(texts, labels, message):
    with pytest.raises(DataError, match=message):
        Reviews(texts=texts, labels=labels, source="s").require_complete(["x", "y"])


def test_reading_imports_no_heavy_package(tmp_path):
    path = _delimited(tmp_path / "x.csv", ",")
    code = (
        "import sys; from reviewguard.data.reviews import read; read(sys.argv[1]);"
        "print(sorted({'torch', 'pandas', 'sklearn', 'pyarrow', 'datasets'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, os.fspath(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_class_labels_of_a_dataset_are_read_as_names():
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["real", "fake"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, None]}, features=features)
    assert read(data).labels == ["fake", "real", None]


def test_further_formats_give_the_same_rows(tmp_path):
    frame = pd.DataFrame({"text": ["good, cheap", "caf\u00e9 \U0001f600", None], "label": [1, 0, 1], "id": [3, 4, 5]})
    rows = [{"text": text, "label": label, "id": id_} for text, label, id_ in zip(*frame.to_dict("list").values(), strict=True)]
    rows[2]["text"] = None
    frame.to_excel(tmp_path / "x.xlsx", index=False)
    (tmp_path / "x.json").write_text(json.dumps(rows))
    polars_frame = pl.DataFrame({name: [row[name] for row in rows] for name in rows[0]})
    arrow = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    dataset = datasets.Dataset.from_list(rows)
    sources = [tmp_path / "x.xlsx", tmp_path / "x.json", polars_frame, arrow, arrow.to_batches()[0], rows]
    sources += [dataset, *(dataset.with_format(name) for name in ("torch", "numpy", "arrow", "pandas"))]
    for source in sources:
        result = read(source)
        assert result.texts == [row["text"] for row in rows], source
        assert (result.labels, result.label_type, result.columns) == (["1", "0", "1"], "int", {"id": [3, 4, 5]}), source


def test_several_files_are_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for number in (2, 1):
        (tmp_path / f"part-{number}.csv").write_text(f"text,label,id\ntext {number},fake,{number}\n")
    for data in (tmp_path / "part-*.csv", "~/part-*.csv", [tmp_path / "part-1.csv", "~/part-2.csv"]):
        result = read(data)
        assert (result.texts, result.columns) == (["text 1", "text 2"], {"id": ["1", "2"]})
    with pytest.raises(DataError, match=r"no file matches .*/part-\?\?\.csv"):
        read(tmp_path / "part-??.csv")
    (tmp_path / "[odd].csv").write_text("text,label\na,fake\n")
    assert read(tmp_path / "[odd].csv").texts == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"text": ["a"]}', r"must hold an array of objects, one per row, such as \[\{\"text\": \.\.\."),
        ("x.json", b'{"text": "a"}\n{"text": "b"}\n', "is not JSON: .*if each line is an object, rename the file to .jsonl"),
        ("x.json", b"[" * 99999, "nested too deeply|is not JSON"),
        ("x.xlsx", b"no workbook", "cannot read .*x.xlsx as an Excel workbook"),
        ("x.parquet", b"no parquet", "cannot read .*x.parquet"),
    ],
)
def test_malformed_files_of_further_formats(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_streamed_dataset_is_refused():
    with pytest.raises(DataError, match="cannot read IterableDataset"):
        read(datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).to_iterable_dataset())


def test_minus_one_is_a_missing_label_of_a_dataset():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["fake", "real"])})
    result = read(datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features))
    assert result.labels == ["real", None]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id;review;label", "the fields seem to be separated by ';': set --delimiter or data.delimiter"),
        (" text ,label", "' text ' has leading or trailing white space: remove it from the header"),
        ("It boils fast and stays warm,fake", "the first row does not look like a header: set --no-header"),
    ],
)
def test_a_missing_column_is_explained(tmp_path, header, message):
    (tmp_path / "x.csv").write_text(f"{header}\n" + ",".join("a" for _ in header.split(",")) + "\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x.csv")


def test_texts_are_taken_from_a_table_without_reading_its_other_columns():
    class Unread(list):
        def __iter__(self):
            raise AssertionError("this column is not asked for")

    assert texts_of({"id": Unread([1]), "text": ["a"]}) == ["a"]
