"""Parts contain every row once, have stable names, and are written completely or not at all."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from reviewguard.errors import DataError
from reviewguard.scale.parts import Place, columns, plan, read, write, written


def put(path: Path, start: int, rows: int, group: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = list(range(start, start + rows))
    table = pa.table({"id": ids, "text": [f"review {i}" for i in ids]})
    parquet.write_table(table, path, row_group_size=group)


def ids_of(tables: list[pa.Table]) -> list[int]:
    return [i for table in tables for i in table["id"].to_pylist()]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 60))
def test_every_row_group_is_in_one_part(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], wanted: int) -> None:
    path = tmp_path_factory.mktemp("in") / "a.parquet"
    schema = pa.schema([("id", pa.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for number, size in enumerate(sizes):
            writer.write_table(pa.table({"id": [number] * size}, schema))
    parts = plan(Place.of(path, None), wanted)
    assert [group for part in parts for group in part.groups] == list(range(len(sizes)))
    assert [part.rows for part in parts] == [sum(sizes[group] for group in part.groups) for part in parts]
    for part in parts:
        assert len(part.groups) == 1 or part.rows <= wanted
    for part, following in pairwise(parts):
        assert part.rows + sizes[following.groups[0]] > wanted, "each part is as large as possible"
    assert sorted(part.target for part in parts) == [part.target for part in parts], "names sort in row order"


def test_folders_patterns_and_single_files(tmp_path: Path) -> None:
    put(tmp_path / "in" / "b.parquet", 100, 10, 4)
    put(tmp_path / "in" / "sub" / "a.pq", 200, 10, 10)
    put(tmp_path / "in" / "_note" / "c.parquet", 0, 5, 5)
    put(tmp_path / "in" / ".d.parquet", 0, 5, 5)
    (tmp_path / "in" / "README.md").write_text("no Parquet")
    parts = plan(Place.of(tmp_path / "in", None), 8)
    assert [part.target for part in parts] == ["b-00000.parquet", "b-00002.parquet", "sub/a-00000.parquet"]
    source = Place.of(tmp_path / "in", None).fs
    assert ids_of([table for part in parts for table in read(source, part)]) == [*range(100, 110), *range(200, 210)]
    assert columns(source, parts[0]) == ["id", "text"]
    put(tmp_path / "in" / "a.parquet", 0, 10, 10)
    again = plan(Place.of(f"file://{tmp_path}/in", None), 8)
    assert [part for part in again if part.target != "a-00000.parquet"] == parts, "a new file does not affect the others"
    assert [part.target for part in plan(Place.of(tmp_path / "in" / "*.parquet", None), 100)] == [
        "a-00000.parquet",
        "b-00000.parquet",
    ]
    assert [part.target for part in plan(Place.of(tmp_path / "in" / "b.parquet", None), 100)] == ["b-00000.parquet"]


def test_unusable_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no Parquet files"):
        plan(Place.of(tmp_path, None), 8)
    with pytest.raises(DataError, match="there are no Parquet files"):
        plan(Place.of(tmp_path / "absent.parquet", None), 8)
    (tmp_path / "in.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"cannot read .*in\.parquet as Parquet"):
        plan(Place.of(tmp_path / "in.parquet", None), 8)
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="has no rows"):
        plan(Place.of(tmp_path / "in.parquet", None), 8)
    with pytest.raises(DataError, match="cannot use 'nowhere://x'"):
        Place.of("nowhere://x", None)


def test_two_files_with_the_same_target_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.parquet", 0, 10, 10)
    put(tmp_path / "in" / "a.pq", 10, 10, 10)
    with pytest.raises(DataError, match=r"differ only in their extension, and would both become a-00000\.parquet; rename one"):
        plan(Place.of(tmp_path / "in", None), 8)


def test_a_part_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.parquet", 0, 10, 10)
    source, out = Place.of(tmp_path / "in", None), Place.of(tmp_path / "out", None)
    [part] = plan(source, 100)

    def torn():
        yield from read(source.fs, part)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write(out, part, torn(), lambda table: {"rows": len(table)})
    assert list((tmp_path / "out").iterdir()) == []
    assert written(out, part) is None
    assert write(out, part, read(source.fs, part), lambda table: {"rows": len(table)}) == {"rows": 10}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a-00000.parquet"]
    assert written(out, part) == {"rows": 10}


def test_damaged_or_outdated_output_is_ignored(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.parquet", 0, 10, 10)
    source, out = Place.of(tmp_path / "in", None), Place.of(tmp_path / "out", None)
    [part] = plan(source, 100)
    write(out, part, read(source.fs, part), lambda table: {"rows": len(table)})
    put(tmp_path / "in" / "a.parquet", 1, 10, 10)
    [changed] = plan(source, 100)
    assert written(out, changed) is None
    target = tmp_path / "out" / part.target
    whole = target.read_bytes()
    for damaged in (whole[:-9], b"", b"\0" * len(whole)):
        target.write_bytes(damaged)
        assert written(out, part) is None
    parquet.write_table(pa.table({"id": list(range(10))}), target)
    assert written(out, part) is None
