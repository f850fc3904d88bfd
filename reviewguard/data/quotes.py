"""Detect the meaning of double quotes in CSV and TSV files; a wrong guess would silently merge several rows into one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Final

from reviewguard.errors import DataError

#: A quoted field with more lines lacks its closing quote, or is not a review.
MOST_LINES: Final = 100


class Guard:
    """Iterator over the lines of a file for csv.reader, which checks after each row that it did not absorb others.

    A stray quote at the beginning of a text extends to the next quote at the end of a text, and the rows in between are lost.
    Such a row is recognised as follows: each of its lines, split at the delimiters, has as many fields as a row; the quoted text
    begins and ends in the same column; and the other columns hold words without spaces, as in all earlier rows.
    """

    def __init__(self, lines: IO[str], source: str, separator: str, *, checks: bool) -> None:
        """Store the lines, the source name for error messages, the delimiter, and whether rows are checked."""
        self._lines, self._source, self._separator, self._checks = iter(lines), source, separator, checks
        self._own: list[str] = []
        self._number = 0
        self._spaced: set[int] = set()  # columns in which spaces have occurred

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        if self._checks:
            self._own.append(line)
            if len(self._own) > MOST_LINES:
                raise self._error(f"has more than {MOST_LINES} lines")
        return line

    def end_of_row(self, row: list[str]) -> None:
        """Check that the lines read since the last row form a single row.

        Raises:
            DataError: If they look like several rows.
        """
        if not self._checks:
            return
        if len(self._own) > 1 and self._are_rows(len(row)):
            raise self._error(f"ends in line {self._number}, but each of these lines looks like a separate row")
        self._spaced |= {index for index, field in enumerate(row) if " " in field.strip()}
        self._own = []

    def _are_rows(self, width: int) -> bool:
        rows = [line.rstrip("\r\n").split(self._separator) for line in self._own]
        if any(len(row) != width for row in rows):
            return False
        opening = {index for index, field in enumerate(rows[0]) if field.startswith('"')}
        closing = {index for index, field in enumerate(rows[-1]) if field.endswith('"')}
        others = set(range(width)) - self._spaced - (opening & closing)
        return bool(opening & closing and others) and all(
            row[index] and " " not in row[index] for row in rows for index in others
        )

    def _error(self, problem: str) -> DataError:
        return DataError(
            f"{self._source}, line {self._number - len(self._own) + 1}: the quoted text that begins here {problem}. If "
            "quotes are plain characters in this file, set quoting to none (--quoting none, data.quoting=none); if its texts "
            "contain line breaks, set it to quoted"
        )


def is_quoted(file: IO[str], again: IO[str], separator: str) -> bool:
    """Whether a TSV file must be read with quoting, or contains fields that only a quoting writer produces.

    Args:
        file: The file, open at its beginning.
        again: A second handle of the same file.
        separator: Delimiter between fields.
    """
    doubled, width = False, 0
    for line in file:
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) != (width or len(fields)) and line.strip():
            return True  # without quoting, lines and rows do not match
        width = width or len(fields)
        doubled = doubled or any(map(_is_written_by_a_program, fields))
    if not doubled:
        return False
    try:
        return all(not row or len(row) == width for row in csv.reader(again, delimiter=separator, strict=True))
    except csv.Error:
        return False


def _is_written_by_a_program(field: str) -> bool:
    """Whether a field is enclosed in quotes, and all quotes inside it are doubled."""
    inner = field[1:-1]
    return len(field) > 1 and field[0] == field[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
