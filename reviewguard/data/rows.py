"""Rows of files, one at a time: CSV, TSV, JSON and JSON lines, plain or compressed by gzip; Parquet and Excel."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from reviewguard import files
from reviewguard.config import DataConfig, Quoting
from reviewguard.data.quotes import Guard, is_quoted
from reviewguard.errors import DataError, requires

STREAMED: Final = (".csv", ".tsv", ".jsonl", ".ndjson")
_BATCH_ROWS: Final = 1024


@dataclass(frozen=True)
class File:
    """A file of rows and how it is written; wherever a path is taken, this is.

    Attributes:
        path: Its name tells the format; `.gz` behind it is read through gzip.
        delimiter: Between the fields of a CSV or TSV file; empty: a tab in TSV, a comma in CSV.
        quoting: Whether fields may stand in double quotes; see `DataConfig.quoting`.
        header: Whether the first row names the columns; without it they are "0", "1" and so on.
    """

    path: str | os.PathLike[str]
    delimiter: str = ""
    quoting: Quoting = "auto"
    header: bool = True

    def __fspath__(self) -> str:
        return os.fspath(files.expanded(self.path))

    def __str__(self) -> str:
        return os.fspath(self)

    @property
    def kind(self) -> str:
        """The ending that tells the format, in lower case, such as ".csv"."""
        name = Path(self)
        return (name.with_suffix("") if name.suffix.casefold() == ".gz" else name).suffix.casefold()

    @property
    def is_text(self) -> bool:
        """Whether numbers are written as text there, with nothing to tell them from it."""
        return self.kind in (".csv", ".tsv")

    @property
    def separator(self) -> str:
        """What stands between fields."""
        return self.delimiter or ("\t" if self.kind == ".tsv" else ",")

    @classmethod
    def of(cls, source: str | os.PathLike[str], settings: DataConfig | None = None) -> File:
        """A path as a file, written as the settings say; a `File` stays as it is.

        Raises:
            DataError: If the delimiter is not one character.
        """
        layout = (settings.delimiter, settings.quoting, settings.header) if settings else ()
        file = source if isinstance(source, File) else cls(source, *layout)
        if len(file.delimiter) > 1:
            raise DataError(f"the delimiter is {file.delimiter!r}; it is one character, such as ; or \\t for a tab")
        return file


def files_of(sources: Iterable[str | os.PathLike[str]], settings: DataConfig | None = None) -> list[File]:
    """Paths as files, wildcards resolved, in the order given.

    Raises:
        DataError: If a wildcard stands for no file.
    """
    found = []
    for source in sources:
        file = File.of(source, settings)
        if Path(file).exists():
            found.append(file)
        elif not glob.has_magic(str(file)):
            raise DataError(f"cannot read {file}: No such file or directory")
        elif names := sorted(glob.glob(str(file), recursive=True)):  # noqa: PTH207 - a Path has no pattern with a root
            found += [replace(file, path=name) for name in names]
        else:
            raise DataError(f"no file matches {file}")
    return found


def iter_rows(source: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Rows of a file, one at a time; in constant memory, but for .json and .xlsx.

    Raises:
        DataError: If there is no such file or its ending is not known; or at the first row that cannot be read, with its line.
        MissingExtra: If a package is missing that the format needs.
    """
    with open_rows(source) as (rows, _):
        yield from rows


@contextmanager
def open_rows(source: str | os.PathLike[str]) -> Iterator[tuple[Iterator[dict[str, Any]], Callable[[], int]]]:
    """Open a file at once: its rows as `iter_rows` yields them, and what says how many of its bytes were read.

    Raises:
        DataError: If there is no such file or its ending is not known.
    """
    source = File.of(source)
    if source.kind not in FILE_TYPES:
        known = ", ".join(FILE_TYPES)
        raise DataError(f"{source} ends in {Path(source).suffix!r}; rows can be read from {known}, and text compressed as .gz")
    try:
        raw = Path(source).open("rb")  # noqa: SIM115 - what goes wrong behind the yield is not about this file
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    with raw:
        size = os.fstat(raw.fileno()).st_size
        # Whatever reads text closes the file at its end.
        yield _translated(source, raw), lambda: size if raw.closed else raw.tell()


def _translated(source: File, raw: BinaryIO) -> Iterator[dict[str, Any]]:
    """Rows, and what goes wrong as an error of ours."""
    try:
        if source.kind in _BINARY:
            yield from _BINARY[source.kind](source, raw)
        else:
            yield from _TEXT[source.kind](source, _text(source, raw))
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8: {error}; convert it, for example with iconv") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {source}: {error}") from error


def _text(source: File, raw: BinaryIO) -> IO[str]:
    """The same file as text; a byte order mark is skipped."""
    plain = gzip.GzipFile(fileobj=raw) if Path(source).suffix.casefold() == ".gz" else raw
    return io.TextIOWrapper(cast(BinaryIO, plain), encoding="utf-8-sig", newline="")


def _iter_csv(source: File, file: IO[str]) -> Iterator[dict[str, Any]]:
    # The csv module refuses fields over 128 KiB unless told otherwise; a review may be longer. The limit is global
    # to the module, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    guard = Guard(file, str(source), source.separator, checks=source.quoting == "auto")
    quoted = source.quoting == "quoted" or (source.quoting == "auto" and _is_quoted(source))
    reader = csv.reader(guard, delimiter=source.separator, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    header: list[str] = []
    try:
        for row in reader:
            guard.end_of_row(row)
            if not header:
                header = row if source.header else [str(index) for index in range(len(row))]
                refuse_repeated(header, str(source))
                if source.header or not row:
                    continue
            if not row and len(header) > 1:
                continue
            if row and len(row) != len(header):
                raise DataError(
                    f"{source}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; a text with "
                    f"{source.separator!r} or line breaks must be quoted"
                )
            # In a file of one column, an empty line is an empty text.
            yield dict(zip(header, row or [""], strict=True))
    except csv.Error as error:
        raise DataError(
            f"{source}, line {reader.line_num}: {error}; if quotes are plain characters there, set quoting to none "
            "(--quoting none, data.quoting=none)"
        ) from error


def _is_quoted(source: File) -> bool:
    """Whether quotes of a file are about its fields; in CSV they are."""
    if source.kind != ".tsv":
        return True
    with Path(source).open("rb") as first, Path(source).open("rb") as second:
        return is_quoted(_text(source, first), _text(source, second), source.separator)


def _iter_jsonl(source: File, file: IO[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
            raise DataError(f"{source}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{source}, line {number}: expected a JSON object, got {type(row).__name__}")
        yield row


def _iter_json(source: File, file: IO[str]) -> Iterator[dict[str, Any]]:
    try:
        rows = json.load(file)
    except RecursionError as error:
        raise DataError(f"{source}: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{source} is not JSON: {error}; if each line is an object, name it .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f'{source} holds no array of objects, one a row, such as [{{"text": ..., "label": ...}}, ...]')
    yield from rows


def _iter_parquet(source: File, raw: BinaryIO) -> Iterator[dict[str, Any]]:
    with requires("files"):
        from pyarrow import ArrowException, parquet
    try:
        file = parquet.ParquetFile(raw)
        refuse_repeated(file.schema_arrow.names, str(source))
        for batch in file.iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()
    except DataError:
        raise
    except (ArrowException, ValueError) as error:
        raise DataError(f"cannot read {source}: {error}") from error


def _iter_excel(source: File, raw: BinaryIO) -> Iterator[dict[str, Any]]:
    with requires("files"):
        import openpyxl
    try:
        sheet = openpyxl.load_workbook(raw, read_only=True, data_only=True).worksheets[0]
    except (ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {source} as an Excel workbook: {error}") from error
    rows = sheet.iter_rows(values_only=True)
    header = [str(name) for name in next(rows, ()) if name is not None]
    refuse_repeated(header, str(source))
    for row in rows:
        if any(value is not None for value in row):
            yield dict(zip(header, [*row, *[None] * len(header)], strict=False))


def refuse_repeated(names: list[str], source: str) -> None:
    """Tell columns of one name, of which all but one would be lost.

    Raises:
        DataError: If there are some.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source} has columns of the same name: {', '.join(map(repr, repeated))}")


_TEXT: Final[dict[str, Callable[[File, IO[str]], Iterator[dict[str, Any]]]]] = {
    ".csv": _iter_csv,
    ".tsv": _iter_csv,
    ".jsonl": _iter_jsonl,
    ".ndjson": _iter_jsonl,
    ".json": _iter_json,
}
_BINARY: Final[dict[str, Callable[[File, BinaryIO], Iterator[dict[str, Any]]]]] = {
    ".parquet": _iter_parquet,
    ".xlsx": _iter_excel,
}
#: Formats that can be read. Those of `STREAMED` can be written too, row by row.
FILE_TYPES: Final = (*_TEXT, *_BINARY)
