"""Rows of files, one at a time and of any length: CSV, TSV and JSON lines, compressed by gzip or not."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from reviewguard.config import DataConfig, Quoting
from reviewguard.data.quotes import Guard, is_quoted
from reviewguard.errors import DataError

STREAMED: Final = (".csv", ".tsv", ".jsonl", ".ndjson")


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
        return os.fspath(self.path)

    def __str__(self) -> str:
        return os.fspath(self.path)

    @property
    def kind(self) -> str:
        """The ending that tells the format, in lower case, such as ".csv"."""
        name = Path(self.path)
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


def iter_rows(source: str | os.PathLike[str], file: IO[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a CSV, TSV or JSONL file, one at a time, in constant memory.

    Args:
        source: The file; its ending tells the format.
        file: The same file, already open as text with `newline=""`; None: it is opened here.

    Raises:
        DataError: At the first row that cannot be read, with its line number.
    """
    source = File.of(source)
    if file is None:
        with open_text(source) as opened:
            yield from iter_rows(source, opened)
        return
    reader = _iter_jsonl if source.kind in (".jsonl", ".ndjson") else _iter_csv
    try:
        yield from reader(source, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8: {error}; convert it, for example with iconv") from error
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {source}: {error}") from error


def open_text(source: str | os.PathLike[str]) -> IO[str]:
    """Open a text file for `iter_rows`; a byte order mark is skipped.

    Raises:
        DataError: If there is no such file or its ending is not one that can be streamed.
    """
    source = File.of(source)
    if source.kind not in STREAMED:
        raise DataError(f"{source} ends in {source.kind!r}; rows can be read one by one from {', '.join(STREAMED)}")
    opener = gzip.open if str(source).casefold().endswith(".gz") else open
    try:
        return cast(IO[str], opener(source, "rt", encoding="utf-8-sig", newline=""))
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from error


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

    def lines() -> IO[str]:
        return open_text(source)

    return is_quoted(lines, source.separator)


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


def refuse_repeated(names: list[str], source: str) -> None:
    """Tell columns of one name, of which all but one would be lost.

    Raises:
        DataError: If there are some.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source} has columns of the same name: {', '.join(map(repr, repeated))}")
