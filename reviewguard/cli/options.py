"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reviewguard.config import Quoting
from reviewguard.data.rows import File

#: Data are text here and not a Path: `~` and wildcards are resolved where they are read.
DataArgument = Annotated[
    str,
    typer.Argument(metavar="DATA", help="CSV, TSV, JSON, JSONL, Parquet or Excel with a column of texts and one of labels."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder of a trained model, or its Hub id; default: the built-in model.")
]
TextOption = Annotated[str, typer.Option("--text", help="Column of the texts.")]
LabelOption = Annotated[str, typer.Option("--label", help="Column of the labels.")]
SplitOption = Annotated[str, typer.Option("--split", help="Only rows with this value in the column of splits.")]
DelimiterOption = Annotated[
    str, typer.Option("--delimiter", help="Between the fields of CSV and TSV; default: a comma, in TSV a tab.")
]
QuotingOption = Annotated[
    Quoting, typer.Option("--quoting", help="Whether double quotes in CSV and TSV enclose fields, or are plain characters.")
]
HeaderOption = Annotated[
    bool, typer.Option("--header/--no-header", help="Whether the first row of CSV and TSV names the columns.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def file_of(data: str, delimiter: str, quoting: Quoting, header: bool) -> File:
    """A file as the options say that it is written; a backslash and a t are a tab, which is hard to type."""
    return File.of(File(data, delimiter.replace("\\t", "\t"), quoting, header))


def data_settings(text: str, label: str, delimiter: str, quoting: Quoting, header: bool) -> dict[str, Any]:
    """The same as settings of training, those that were given."""
    given = {"text": text, "label": label, "delimiter": delimiter.replace("\\t", "\t"), "quoting": quoting, "header": header}
    usual = {"text": "", "label": "", "delimiter": "", "quoting": "auto", "header": True}
    return {f"data.{name}": value for name, value in given.items() if value != usual[name]}
