"""Read rows from files, one at a time: CSV, TSV, JSON and JSON Lines, plain or gzip-compressed; Parquet and Excel."""

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
    """A data file with its layout; accepted wherever a path is.

    Attributes:
        path: Path whose suffix determines the format; a final `.gz` means gzip compression.
        delimiter: Field delimiter of a CSV or TSV file; empty: a tab in TSV, a comma in CSV.
        quoting: Whether fields may be enclosed in double quotes; see `DataConfig.quoting`.
        header: Whether the first row holds the column names; without a header they are "0", "1" and so on.
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
        """The suffix that determines the format, in lower case, such as ".csv"."""
        name = Path(self)
        return (name.with_suffix("") if name.suffix.casefold() == ".gz" else name).suffix.casefold()

    @property
    def is_text(self) -> bool:
        """Whether the format does not distinguish numbers from text."""
        return self.kind in (".csv", ".tsv")

    @property
    def separator(self) -> str:
        """The delimiter between fields."""
        return self.delimiter or ("\t" if self.kind == ".tsv" else ",")

    @classmethod
    def of(cls, source: str | os.PathLike[str], settings: DataConfig | None = None) -> File:
        """Build a `File` from a path and the layout in the settings; a `File` is returned unchanged.

        Raises:
            DataError: If the delimiter is not a single character.
        """
        layout = (settings.delimiter, settings.quoting, settings.header) if settings else ()
        file = source if isinstance(source, File) else cls(source, *layout)
        if len(file.delimiter) > 1:
            raise DataError(f"the delimiter is {file.delimiter!r}; it must be a single character, such as ; or \\t for a tab")
        return file


def files_of(sources: Iterable[str | os.PathLike[str]], settings: DataConfig | None = None) -> list[File]:
    """Resolve wildcards and return the files, in the given order.

    Raises:
        DataError: If a file does not exist, or a wildcard matches no file.
    """
    matches = []
    for source in sources:
        file = File.of(source, settings)
        if Path(file).exists():
            matches.append(file)
        elif not glob.has_magic(str(file)):
            raise DataError(f"cannot read {file}: No such file or directory")
        elif names := sorted(glob.glob(str(file), recursive=True)):  # noqa: PTH207 - Path.glob accepts no absolute pattern
            matches += [replace(file, path=name) for name in names]
        else:
            raise DataError(f"no file matches {file}")
    return matches


def iter_rows(source: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a file, in constant memory except for .json and .xlsx.

    Raises:
        DataError: If the file does not exist, its suffix is unknown, or a row cannot be read; the message names the line.
        MissingExtra: If a package that the format needs is not installed.
    """
    with open_rows(source) as (rows, _):
        yield from rows


@contextmanager
def open_rows(source: str | os.PathLike[str]) -> Iterator[tuple[Iterator[dict[str, Any]], Callable[[], int]]]:
    """Open a file immediately; yields its rows as `iter_rows` does, and a function that returns the number of bytes read so far.

    Raises:
        DataError: If the file does not exist or its suffix is unknown.
    """
    source = File.of(source)
    if source.kind not in FILE_TYPES:
        known = ", ".join(FILE_TYPES)
        raise DataError(f"{source} ends in {Path(source).suffix!r}; supported are {known}, and text files compressed as .gz")
    try:
        raw = Path(source).open("rb")  # noqa: SIM115 - errors raised after the yield do not concern this file
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    with raw:
        size = os.fstat(raw.fileno()).st_size
        # Text readers close the file when they reach its end.
        yield _translated(source, raw), lambda: size if raw.closed else raw.tell()


def _translated(source: File, raw: BinaryIO) -> Iterator[dict[str, Any]]:
    """Iterate over the rows, and convert read errors to `DataError`."""
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
    """Open the binary file as text, decompressed if needed; a byte order mark is skipped."""
    plain = gzip.GzipFile(fileobj=raw) if Path(source).suffix.casefold() == ".gz" else raw
    return io.TextIOWrapper(cast(BinaryIO, plain), encoding="utf-8-sig", newline="")


def _iter_csv(source: File, file: IO[str]) -> Iterator[dict[str, Any]]:
    # By default, the csv module refuses fields over 128 KiB, but a review may be longer. The limit is global to the module, so
    # it is only ever raised.
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
                    f"{source}, line {reader.line_num}: {len(row)} fields, but the header has {len(header)}; a text "
                    f"that contains {source.separator!r} or line breaks must be quoted"
                )
            # In a file with one column, an empty line is an empty text.
            yield dict(zip(header, row or [""], strict=True))
    except csv.Error as error:
        raise DataError(
            f"{source}, line {reader.line_num}: {error}; if quotes are plain characters in this file, set quoting to none "
            "(--quoting none, data.quoting=none)"
        ) from error


def _is_quoted(source: File) -> bool:
    """Whether double quotes enclose fields; always true for CSV."""
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
        except (ValueError, RecursionError) as error:  # ValueError also covers numbers with thousands of digits
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
        raise DataError(f"{source} is not JSON: {error}; if each line is an object, rename the file to .jsonl") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f'{source} must hold an array of objects, one per row, such as [{{"text": ..., "label": ...}}, ...]')
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
    """Refuse repeated column names, since only one of the columns could be kept.

    Raises:
        DataError: If a name occurs more than once.
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
#: Suffixes of the supported input formats. Those in `STREAMED` can also be written, row by row.
FILE_TYPES: Final = (*_TEXT, *_BINARY)
