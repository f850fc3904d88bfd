"""Arguments and options shared by several commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reviewguard.config import Quoting
from reviewguard.data.rows import File

#: Data is a string, not a Path, because `~` and wildcards are resolved on reading.
DataArgument = Annotated[
    str,
    typer.Argument(metavar="DATA", help="CSV, TSV, JSON, JSONL, Parquet or Excel file with a text column and a label column."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder or Hub id of a trained model; default: the built-in model.")
]
TextOption = Annotated[str, typer.Option("--text", help="Text column; default: detected.")]
LabelOption = Annotated[str, typer.Option("--label", help="Label column; default: detected.")]
SplitOption = Annotated[str, typer.Option("--split", help="Use only rows with this value in the split column.")]
DelimiterOption = Annotated[
    str, typer.Option("--delimiter", help="Field delimiter of CSV and TSV; default: a comma in CSV, a tab in TSV.")
]
QuotingOption = Annotated[
    Quoting, typer.Option("--quoting", help="Whether double quotes in CSV and TSV enclose fields or are plain characters.")
]
HeaderOption = Annotated[
    bool, typer.Option("--header/--no-header", help="Whether the first row of CSV and TSV holds the column names.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def file_of(data: str, delimiter: str, quoting: Quoting, header: bool) -> File:
    """Build a `File` from the layout options; a backslash followed by t in the delimiter stands for a tab."""
    return File.of(File(data, delimiter.replace("\\t", "\t"), quoting, header))


def data_settings(text: str, label: str, delimiter: str, quoting: Quoting, header: bool) -> dict[str, Any]:
    """The data options as training settings, without those that have their default."""
    options = {"text": text, "label": label, "delimiter": delimiter.replace("\\t", "\t"), "quoting": quoting, "header": header}
    defaults = {"text": "", "label": "", "delimiter": "", "quoting": "auto", "header": True}
    return {f"data.{name}": value for name, value in options.items() if value != defaults[name]}
