"""Text and Markdown tables."""

from __future__ import annotations


def text_table(rows: list[list[str]]) -> str:
    """Format rows of cells, starting with the header, in aligned columns for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown_table(rows: list[list[str]]) -> str:
    """Format rows of cells, starting with the header, as Markdown."""
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
