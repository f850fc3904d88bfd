"""What double quotes mean in CSV and TSV, where a wrong guess makes one row of several in silence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Final

from reviewguard.errors import DataError

#: A quoted field of more lines has lost its closing quote, or is no review.
MOST_LINES: Final = 100


class Guard:
    """Lines of a file for csv.reader, and after each row a look at whether it swallowed others.

    A quote that opens a text by chance is closed by the next one that ends a text: then rows in between are lost. In such a
    row each line has, split at its delimiters, as many fields as a row; the text that the quotes belong to begins and ends in
    the same column; and the other columns hold there what they always do, words without spaces.
    """

    def __init__(self, lines: IO[str], source: str, separator: str, *, checks: bool) -> None:
        """Take the lines, a name for messages, what stands between fields, and whether to look at all."""
        self._lines, self._source, self._separator, self._checks = iter(lines), source, separator, checks
        self._own: list[str] = []
        self._number = 0
        self._spaced: set[int] = set()  # columns in which white space was seen

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
        """See that the lines since the last row are one row.

        Raises:
            DataError: If they look like several.
        """
        if not self._checks:
            return
        if len(self._own) > 1 and self._are_rows(len(row)):
            raise self._error(f"ends in line {self._number}, and each of these lines looks like a row of its own")
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

    def _error(self, what: str) -> DataError:
        return DataError(
            f"{self._source}, line {self._number - len(self._own) + 1}: a text that begins with a quote there {what}. If quotes "
            "are plain characters in this file, set quoting to none (--quoting none, data.quoting=none); if its texts have line "
            "breaks, set it to quoted"
        )


def is_quoted(file: IO[str], again: IO[str], separator: str) -> bool:
    """Whether a TSV file must be read with quotes, or has what only a program that quotes writes.

    Args:
        file: Open at its beginning.
        again: The same, a second time.
        separator: What stands between fields.
    """
    doubled, width = False, 0
    for line in file:
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) != (width or len(fields)) and line.strip():
            return True  # as it stands, it is not one row a line
        width = width or len(fields)
        doubled = doubled or any(map(_is_written_by_a_program, fields))
    if not doubled:
        return False
    try:
        return all(not row or len(row) == width for row in csv.reader(again, delimiter=separator, strict=True))
    except csv.Error:
        return False


def _is_written_by_a_program(field: str) -> bool:
    """Whether a field stands in quotes and has doubled ones inside, and no other."""
    inner = field[1:-1]
    return len(field) > 1 and field[0] == field[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
