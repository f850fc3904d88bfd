"""Parquet in parts: a few row groups of one file, whose rows become one file of the output, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Final

import fsspec
import msgspec
import pyarrow as pa
from pyarrow import parquet
from tqdm import tqdm

from reviewguard.errors import DataError, ReviewGuardError

#: Rows that are held in memory at a time.
BATCH_ROWS: Final = 1024
#: Footers that are read side by side.
_READERS: Final = 16
#: Under which a file of the output says what it was made from, and what was counted.
_NOTE: Final = b"reviewguard"


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn whatever a file system raises into an error of ours: each has classes of its own.

    Raises:
        DataError: Where anything is raised.
    """
    try:
        yield
    except ReviewGuardError:
        raise
    except Exception as error:
        raise DataError(f"cannot {doing}: {error}") from error


class Place(msgspec.Struct, frozen=True):
    """A file or folder, here or behind any URL that fsspec knows."""

    fs: fsspec.AbstractFileSystem
    path: str

    @classmethod
    def of(cls, url: str | os.PathLike[str], options: dict[str, Any] | None) -> Place:
        """From a path or URL.

        Raises:
            DataError: If nothing is installed that reads it.
        """
        with translated(f"use {os.fspath(url)!r}"):
            fs, path = fsspec.core.url_to_fs(os.fspath(url), **(options or {}))
            fs.invalidate_cache()  # it remembers listings, even those of an earlier job
            return cls(fs, path)


class Part(msgspec.Struct, frozen=True):
    """A piece of the input.

    Attributes:
        source: The file.
        version: Of the file, by its file system: size and time, or a hash.
        groups: Its row groups that are read.
        rows: In them.
        target: The file of the output, relative to its folder.
    """

    source: str
    version: str
    groups: list[int]
    rows: int
    target: str


def plan(source: Place, rows: int) -> list[Part]:
    """Divide Parquet files into parts of about so many rows, at the borders of row groups; only footers are read.

    A part is named after its file and its first row group, so more files in the folder leave the names of the others as they are.

    Raises:
        DataError: If there is no Parquet, or a footer cannot be read.
    """
    paths, root = _files(source)

    def of_file(path: str) -> list[Part]:
        with translated(f"read {path} as Parquet"), source.fs.open(path, "rb") as file:
            footer, version = parquet.read_metadata(file), source.fs.ukey(path)
        name = PurePosixPath(path).relative_to(root).with_suffix("")
        together: list[list[int]] = []
        room = 0
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        for group, size in enumerate(sizes):
            if not size:
                continue
            if not together or size > room:
                together.append([])
                room = rows
            together[-1].append(group)
            room -= size
        return [
            Part(path, version, groups, sum(sizes[group] for group in groups), f"{name}-{groups[0]:05}.parquet")
            for groups in together
        ]

    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(of_file, paths)
        shown = tqdm(found, total=len(paths), desc="reading footers", unit=" files", disable=None, leave=False)
        parts = [part for of in shown for part in of]
    if not parts:
        raise DataError(f"{source.path} has no rows")
    if repeated := sorted(name for name, times in Counter(part.target for part in parts).items() if times > 1):
        raise DataError(
            f"two files of {source.path} differ in their ending alone, and would both become {repeated[0]}; rename one"
        )
    return parts


def _files(source: Place) -> tuple[list[str], PurePosixPath]:
    """Parquet files in a place, sorted, and the folder that their names are relative to."""
    fs, path = source.fs, source.path
    with translated(f"read {path}"):
        if fs.isdir(path):
            paths, root = fs.find(path), PurePosixPath(path)
        else:
            paths = fs.glob(path) if "*" in path else [path] if fs.exists(path) else []
            root = PurePosixPath(path.split("*", 1)[0] + "-").parent
    found = []
    for name in sorted(paths):
        short = PurePosixPath(name).relative_to(root)
        # What begins so is a note of whoever wrote the folder, as in Spark and Arrow.
        is_note = any(part.startswith(("_", ".")) for part in short.parts)
        if short.suffix.casefold() in (".parquet", ".pq") and not is_note:
            found.append(name)
    if not found:
        raise DataError(f"there is no Parquet (*.parquet, *.pq) in {path}; CSV and JSONL of any length are for the local engine")
    return found, root


def columns(fs: fsspec.AbstractFileSystem, part: Part) -> list[str]:
    """Names of the columns."""
    with fs.open(part.source, "rb") as file:
        names: list[str] = parquet.read_schema(file).names
    return names


def read(fs: fsspec.AbstractFileSystem, part: Part, only: list[str] | None = None) -> Iterator[pa.Table]:
    """Rows of a part, in order, a few at a time, all or some columns of them."""
    with fs.open(part.source, "rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH_ROWS, row_groups=part.groups, columns=only):
            yield pa.Table.from_batches([batch])


def write(out: Place, part: Part, tables: Iterator[pa.Table], count: Callable[[pa.Table], dict[str, int]]) -> dict[str, int]:
    """Write the file of a part, under another name until it is whole.

    Args:
        out: Folder of the output.
        part: What the tables were made from.
        tables: One at least.
        count: What to count of each.

    Returns:
        The sums, which the file keeps.
    """
    target = f"{out.path}/{part.target}"
    folder, _, name = target.rpartition("/")
    out.fs.makedirs(folder, exist_ok=True)
    staging, sums = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp", dict[str, int]()
    try:
        with out.fs.open(staging, "wb") as file:
            first = next(tables)
            with parquet.ParquetWriter(file, first.schema) as writer:
                table: pa.Table | None = first
                while table is not None:
                    writer.write_table(table)
                    sums = {key: sums.get(key, 0) + value for key, value in count(table).items()}
                    table = next(tables, None)
                writer.add_key_value_metadata({_NOTE: json.dumps({"version": part.version, "counts": sums})})
        out.fs.mv(staging, target)
    except BaseException:
        if out.fs.exists(staging):
            out.fs.rm(staging)
        raise
    return sums


def written(out: Place, part: Part) -> dict[str, int] | None:
    """What was counted when the file of a part was written; None: there is none, or of another version of its source."""
    target = f"{out.path}/{part.target}"
    if not out.fs.exists(target):
        return None
    try:
        with out.fs.open(target, "rb") as file:
            footer = parquet.read_metadata(file)
        note = json.loads((footer.metadata or {})[_NOTE])
    except (OSError, pa.ArrowException, KeyError, ValueError):  # torn by a power cut, or not of ours
        return None
    whole = footer.num_rows == part.rows and note["version"] == part.version
    return dict(note["counts"]) if whole else None
