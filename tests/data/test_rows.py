"""Rows of files, one at a time; what they hold is tested where they are read into a table, in test_reviews.py."""

import pytest

from reviewguard.data.rows import iter_rows, open_text
from reviewguard.errors import DataError


def test_rows_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,b\nc,d\nbroken\n")
    rows = iter_rows(path)
    assert [next(rows), next(rows)] == [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]
    with pytest.raises(DataError, match="line 4"):
        next(rows)
    with open_text(path) as file:
        assert next(iter_rows(path, file)) == {"text": "a", "label": "b"}


@pytest.mark.parametrize(("name", "content"), [("x.csv", 'text\na\n\n"b\n\nc"\n'), ("x.tsv", '\r\ntext\r\na\r\n\r\n"b\n\nc"')])
def test_an_empty_line_of_a_single_column_is_an_empty_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert list(iter_rows(tmp_path / name)) == [{"text": "a"}, {"text": ""}, {"text": "b\n\nc"}]


def test_parquet_cannot_be_streamed(tmp_path):
    with pytest.raises(DataError, match=r"ends in '\.parquet'; rows can be read one by one from \.csv"):
        open_text(tmp_path / "x.parquet")
