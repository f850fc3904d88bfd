"""Reading files row by row; their contents are tested in test_reviews.py."""

import csv
import gzip
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.config import DataConfig
from reviewguard.data.reviews import read
from reviewguard.data.rows import File, iter_rows, open_rows
from reviewguard.errors import DataError


def test_rows_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,b\nc,d\nbroken\n")
    rows = iter_rows(path)
    assert [next(rows), next(rows)] == [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]
    with pytest.raises(DataError, match="line 4"):
        next(rows)
    with open_rows(path) as (opened, position):
        assert position() == 0
        assert next(opened) == {"text": "a", "label": "b"}
        assert position() > 0


def test_an_empty_line_of_a_single_column_is_an_empty_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'text\na\n\n"b\n\nc"\n')
    assert list(iter_rows(tmp_path / "x.csv")) == [{"text": "a"}, {"text": ""}, {"text": "b\n\nc"}]
    (tmp_path / "x.tsv").write_bytes(b"\r\ntext\r\na\r\n\r\nb")
    assert list(iter_rows(tmp_path / "x.tsv")) == [{"text": "a"}, {"text": ""}, {"text": "b"}]


def test_unsupported_and_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ends in '\.docx'; supported are \.csv, .*\.xlsx, and text files compressed as \.gz"):
        list(iter_rows(tmp_path / "x.docx"))
    with pytest.raises(DataError, match=r"cannot read .*x\.csv: No such file"):
        list(iter_rows(tmp_path / "x.csv"))


BARE = '1{0}"Great product{1} it lasts{0}real\n2{0}I bought two{1} it was 5"{0}fake\n'


def texts(path, **layout):
    return [row["text"] for row in iter_rows(File(path, **layout))]


@pytest.mark.parametrize("before", ["", "0{0}It boils.{0}real\n"])
def test_rows_are_not_merged_by_bare_quotes(tmp_path, before):
    """One text begins with a quote and a later one ends with one, as in sizes in inches."""
    tsv, comma = tmp_path / "x.tsv", tmp_path / "x.csv"
    tsv.write_text(("id{0}text{0}label\n" + before + BARE).format("\t", ","))
    merged = ['"Great product, it lasts', 'I bought two, it was 5"']
    assert texts(tsv)[-2:] == merged
    comma.write_text(("id{0}text{0}label\n" + before + BARE).format(",", ";"))
    with pytest.raises(DataError, match=rf"x.csv, line {3 if before else 2}: the quoted text that begins here") as caught:
        texts(comma)
    assert "--quoting none, data.quoting=none" in str(caught.value)
    assert texts(comma, quoting="none")[-2:] == [text.replace(",", ";") for text in merged]


@pytest.mark.parametrize(
    "rows",
    [
        [("Good, but\nlate, and blue", "fake"), ("Fine.", "real")],
        [("Good,\nlate", "fake")],
        [("One\n\ntwo, three\nfour", "fake"), ('She said "no", twice\nthen left', "real")],
    ],
)
def test_texts_with_line_breaks_stay_whole(tmp_path, rows):
    for columns in (("text", "label"), ("id", "text", "label")):
        with open(tmp_path / "x.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(row if len(columns) == 2 else (f"r{index}", *row) for index, row in enumerate(rows))
        assert texts(tmp_path / "x.csv") == [text for text, _ in rows]


def test_a_quote_that_never_ends(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('text,label\n"lost,real\n' + "fine,fake\n" * 300)
    with pytest.raises(DataError, match="line 2: the quoted text that begins here has more than 100 lines"):
        texts(path)
    assert len(texts(path, quoting="none")) == 301
    path.write_text('text,label\n"a b" c,real\n')
    with pytest.raises(DataError, match=r"line 2: .*if quotes are plain characters in this file, set quoting to none"):
        texts(path)
    path.write_text('text,label\n"' + "a line\n" * 150 + '",real\n')
    assert len(texts(path, quoting="quoted")[0].splitlines()) == 150


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab ,;"\t\n'), min_size=1), min_size=1, max_size=5), st.sampled_from([".tsv", ".csv"]))
def test_quoted_files_round_trip(tmp_path_factory, values, ending):
    """A quoted TSV file is recognised by patterns that only a quoting writer produces; other files are read without quotes."""
    path = tmp_path_factory.mktemp("rows") / f"x{ending}"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
        writer.writerows([("id", "text"), *((f"no. {index}", value) for index, value in enumerate(values))])
    assert texts(path, quoting="quoted") == values
    if ending == ".tsv" and any("\t" in value and "\n" not in value for value in values):
        assert texts(path) == values


def test_tsv_with_doubled_quotes_was_written_by_a_program(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"She said ""no""."\treal\n5" screen\tfake\n')
    assert texts(path) == ['She said "no".', '5" screen']
    path.write_text('text\tlabel\n"She said ""no""."\treal\n"5" screen\tfake\n')
    assert texts(path) == ['"She said ""no""."', '"5" screen'], "it cannot be read with quotes"


def test_other_delimiters_and_no_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Fine, and dry;real\nGood, and wet;fake\n")
    assert list(iter_rows(File(path, delimiter=";", header=False)))[1] == {"0": "Good, and wet", "1": "fake"}
    rows = read(path, text="0", label="1", settings=DataConfig(delimiter=";", header=False))
    assert (rows.texts, rows.labels) == (["Fine, and dry", "Good, and wet"], ["real", "fake"])
    with pytest.raises(DataError, match="the delimiter is ';;'; it must be a single character"):
        texts(path, delimiter=";;")


@pytest.mark.parametrize(("name", "content"), [("x.csv.gz", "text,label\na,b\n"), ("x.jsonl.GZ", '{"text": "a"}\n')])
def test_gzip(tmp_path, name, content):
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert texts(tmp_path / name) == ["a"]
    (tmp_path / name).write_bytes(gzip.compress(random.Random(0).randbytes(9999).hex().encode())[:-20])
    with pytest.raises(DataError, match="cannot read"):
        texts(tmp_path / name)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*gzip"):
        texts(tmp_path / name)
