"""Parts of Parquet files: a few row groups of one file, whose rows become one output file, written completely or not at all."""

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

#: Number of rows in memory at a time.
BATCH_ROWS: Final = 1024
#: Number of footers read in parallel.
_READERS: Final = 16
#: Metadata key under which an output file records its source version and counts.
_NOTE: Final = b"reviewguard"


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Convert any exception of a file system into a DataError; each file system has its own classes.

    Raises:
        DataError: If anything is raised inside.
    """
    try:
        yield
    except ReviewGuardError:
        raise
    except Exception as error:
        raise DataError(f"cannot {doing}: {error}") from error


class Place(msgspec.Struct, frozen=True):
    """A file or folder, local or at any URL supported by fsspec."""

    fs: fsspec.AbstractFileSystem
    path: str

    @classmethod
    def of(cls, url: str | os.PathLike[str], options: dict[str, Any] | None) -> Place:
        """Create a place from a path or URL.

        Raises:
            DataError: If no installed package supports the URL.
        """
        with translated(f"use {os.fspath(url)!r}"):
            fs, path = fsspec.core.url_to_fs(os.fspath(url), **(options or {}))
            fs.invalidate_cache()  # listings are cached across jobs
            return cls(fs, path)


class Part(msgspec.Struct, frozen=True):
    """A part of the input.

    Attributes:
        source: Path of the file.
        version: Version of the file from its file system: size and time, or a hash.
        groups: Row groups of this part.
        rows: Number of rows.
        target: Path of the output file, relative to the output folder.
    """

    source: str
    version: str
    groups: list[int]
    rows: int
    target: str


def plan(source: Place, rows: int) -> list[Part]:
    """Divide Parquet files into parts of about `rows` rows, at row group boundaries. Only footers are read.

    A part is named after its file and its first row group, so that adding files to the folder does not change the names of other
    parts.

    Raises:
        DataError: If there are no Parquet files, or if a footer cannot be read.
    """
    paths, root = _files(source)

    def of_file(path: str) -> list[Part]:
        with translated(f"read {path} as Parquet"), source.fs.open(path, "rb") as file:
            footer, version = parquet.read_metadata(file), source.fs.ukey(path)
        name = PurePosixPath(path).relative_to(root).with_suffix("")
        chunks: list[list[int]] = []
        room = 0
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        for group, size in enumerate(sizes):
            if not size:
                continue
            if not chunks or size > room:
                chunks.append([])
                room = rows
            chunks[-1].append(group)
            room -= size
        return [
            Part(path, version, groups, sum(sizes[group] for group in groups), f"{name}-{groups[0]:05}.parquet")
            for groups in chunks
        ]

    with ThreadPoolExecutor(_READERS) as pool:
        plans = pool.map(of_file, paths)
        progress = tqdm(plans, total=len(paths), desc="reading footers", unit=" files", disable=None, leave=False)
        parts = [part for file_parts in progress for part in file_parts]
    if not parts:
        raise DataError(f"{source.path} has no rows")
    if repeated := sorted(name for name, times in Counter(part.target for part in parts).items() if times > 1):
        raise DataError(
            f"two files of {source.path} differ only in their extension, and would both become {repeated[0]}; rename one"
        )
    return parts


def _files(source: Place) -> tuple[list[str], PurePosixPath]:
    """Parquet files in a place, sorted, and the folder to which their names are relative."""
    fs, path = source.fs, source.path
    with translated(f"read {path}"):
        if fs.isdir(path):
            paths, root = fs.find(path), PurePosixPath(path)
        else:
            paths = fs.glob(path) if "*" in path else [path] if fs.exists(path) else []
            root = PurePosixPath(path.split("*", 1)[0] + "-").parent
    selected = []
    for name in sorted(paths):
        short = PurePosixPath(name).relative_to(root)
        # Such names are metadata of the writer, as in Spark and Arrow.
        is_metadata = any(part.startswith(("_", ".")) for part in short.parts)
        if short.suffix.casefold() in (".parquet", ".pq") and not is_metadata:
            selected.append(name)
    if not selected:
        raise DataError(
            f"there are no Parquet files (*.parquet, *.pq) in {path}; use the local engine for CSV and JSONL of any length"
        )
    return selected, root


def columns(fs: fsspec.AbstractFileSystem, part: Part) -> list[str]:
    """Column names of a part."""
    with fs.open(part.source, "rb") as file:
        names: list[str] = parquet.read_schema(file).names
    return names


def read(fs: fsspec.AbstractFileSystem, part: Part, only: list[str] | None = None) -> Iterator[pa.Table]:
    """Read the rows of a part in order, in batches; all columns or only the given ones."""
    with fs.open(part.source, "rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH_ROWS, row_groups=part.groups, columns=only):
            yield pa.Table.from_batches([batch])


def write(out: Place, part: Part, tables: Iterator[pa.Table], count: Callable[[pa.Table], dict[str, int]]) -> dict[str, int]:
    """Write the output file of a part, under a temporary name until it is complete.

    Args:
        out: Output folder.
        part: Part from which the tables were computed.
        tables: At least one table.
        count: Function that returns the counts of a table.

    Returns:
        Sums of the counts, which are also stored in the file.
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
    """Counts stored in the output file of a part. None: there is no file, or its source has changed since."""
    target = f"{out.path}/{part.target}"
    if not out.fs.exists(target):
        return None
    try:
        with out.fs.open(target, "rb") as file:
            footer = parquet.read_metadata(file)
        note = json.loads((footer.metadata or {})[_NOTE])
    except (OSError, pa.ArrowException, KeyError, ValueError):  # incomplete, or not written by this package
        return None
    is_current = footer.num_rows == part.rows and note["version"] == part.version
    return dict(note["counts"]) if is_current else None
