"""Rows of text files, one at a time: CSV, TSV and JSON lines of any length."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from reviewguard.errors import DataError

STREAMED: Final = (".csv", ".tsv", ".jsonl", ".ndjson")


def iter_rows(path: str | os.PathLike[str], file: IO[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a CSV, TSV or JSONL file, one at a time, in constant memory.

    Args:
        path: The file; its ending tells the format.
        file: The same file, already open as text with `newline=""`; None: it is opened here.

    Raises:
        DataError: At the first row that cannot be read, with its line number.
    """
    path = Path(path)
    if file is None:
        with open_text(path) as opened:
            yield from iter_rows(path, opened)
        return
    reader = _iter_jsonl if path.suffix.casefold() in (".jsonl", ".ndjson") else _iter_csv
    try:
        yield from reader(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; convert it, for example with iconv") from error


def open_text(path: Path) -> IO[str]:
    """Open a text file for `iter_rows`; a byte order mark is skipped.

    Raises:
        DataError: If there is no such file or its ending is not one that can be streamed.
    """
    if path.suffix.casefold() not in STREAMED:
        raise DataError(f"{path} ends in {path.suffix!r}; rows can be read one by one from {', '.join(STREAMED)}")
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _iter_csv(path: Path, file: IO[str]) -> Iterator[dict[str, Any]]:
    # The csv module refuses fields over 128 KiB unless told otherwise; a review may be longer. The limit is global
    # to the module, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.reader(file, delimiter="\t" if path.suffix.casefold() == ".tsv" else ",", strict=True)
    try:
        header = next((row for row in reader if row), [])
        refuse_repeated(header, str(path))
        for row in reader:
            if not row and len(header) > 1:
                continue
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; "
                    "a text with commas or line breaks must be quoted"
                )
            # In a file of one column, an empty line is an empty text.
            yield dict(zip(header, row or [""], strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _iter_jsonl(path: Path, file: IO[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
            raise DataError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
        yield row


def refuse_repeated(names: list[str], source: str) -> None:
    """Tell columns of one name, of which all but one would be lost.

    Raises:
        DataError: If there are some.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source} has columns of the same name: {', '.join(map(repr, repeated))}")
