"""Commands that read reviews: `reviewguard train | evaluate | stress | predict`."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reviewguard import config, files
from reviewguard.bundle.folder import check_target
from reviewguard.cli import console, experiments
from reviewguard.cli.options import (
    DataArgument,
    DelimiterOption,
    HeaderOption,
    JsonOption,
    LabelOption,
    ModelOption,
    QuotingOption,
    SplitOption,
    TextOption,
    data_settings,
    file_of,
)
from reviewguard.cli.output import announce, loaded, show
from reviewguard.data.perturb import ATTACKS
from reviewguard.data.rows import files_of
from reviewguard.errors import ConfigError, requires

if TYPE_CHECKING:
    from reviewguard.inference.streaming import Summary


def train(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Files as for `evaluate`; several, or a wildcard, are read as one.")
    ],
    preset: Annotated[str, typer.Option("--preset", "-p", help="A name from `reviewguard presets`, or a .toml file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained model.")],
    validation: Annotated[str | None, typer.Option(help="Validation rows; without it, rows of DATA are held out.")] = None,
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and log of fine-tuning; default: one in reviewguard-runs/.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint that is whole.")] = False,
    resume_if_possible: Annotated[bool, typer.Option("--resume-if-possible", help="The same, or begin anew.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read, clean and check everything; train and write nothing.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="For --dry-run: how many the launcher will start in all.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier and report how it does beside a bag of words."""
    files_of(data)  # a file that is not there is told before torch is loaded
    from reviewguard.classifier import Classifier

    check_target(out)  # before the work, not after it
    settings = data_settings(text, label, delimiter, quoting, header) | config.parse_assignments(assignments or [])
    classifier = Classifier(preset, **settings)
    if dry_run:
        found = classifier.dry_run(data, validation, processes=processes)
        show(found, found.to_text(), as_json)
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("reviewguard").setLevel(logging.INFO)
    report = classifier.train(data, validation, run_dir=run_dir, resume="if-possible" if resume_if_possible else resume)
    classifier.save(out)  # before anything is printed, which can fail
    if files.is_main_process():
        typer.echo(f"saved to {out}", err=True)
        show(report, report.to_text(), as_json)


def evaluate(
    data: DataArgument,
    model: ModelOption = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on labelled rows."""
    report = loaded(model).evaluate(file_of(data, delimiter, quoting, header), split=split, text=text, label=label)
    show(report, report.to_text(), as_json)


def stress(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or its Hub id; built-in: the built-in model.")],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the report with a chart; needs reviewguard[experiments].")
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help=f"May be repeated; default: all of {', '.join(ATTACKS)}.")] = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on labelled rows under attack: look-alike letters, typos, casual style and others."""
    if out is not None:  # before the work, not after it
        with requires("experiments"):
            from reviewguard.experiments.results import folder_at
            from reviewguard.experiments.stress import stress_page
        folder_at(out).mkdir(parents=True, exist_ok=True)
    classifier = loaded(None if model == "built-in" else model)
    rows = file_of(data, delimiter, quoting, header)
    report = classifier.stress(rows, attacks=attack or list(ATTACKS), split=split, text=text, label=label)
    if out is not None:
        stress_page(report, experiments.this_command()).save(out)
        files.replace(out / "report.json", report.to_json().encode())
    show(report, report.to_text(), as_json)


def predict(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="CSV, TSV, JSON, JSONL, Parquet or Excel with a column of texts; - for CSV or JSONL from standard input. With "
            "--engine ray: Parquet, a folder of it, or its URL",
        ),
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="CSV, TSV or JSONL; default, and -: standard output. With --engine ray: a folder or its URL."
        ),
    ] = None,
    texts: Annotated[list[str] | None, typer.Option("--input", help="A text, in place of DATA; may be repeated.")] = None,
    text: TextOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="This process, or all cores of the Ray cluster that RAY_ADDRESS names."),
    ] = "local",
    as_json: JsonOption = False,
) -> None:
    """Add the predicted label and the probability of each class to every row; run again after a kill, it resumes."""
    from reviewguard.inference import streaming

    if (data is None) == (texts is None):
        raise ConfigError("give either DATA, which may be - for standard input, or --input TEXT")
    if engine == "ray":
        if out is None or data is None:
            raise ConfigError("--engine ray reads Parquet and writes a folder; name both, the latter with --out")
        from reviewguard import scale

        announce(model)
        _predicted(scale.predict_parquet(data, out, model, text=text), as_json)
        return
    classifier = loaded(model)
    with tempfile.TemporaryDirectory() as scratch:
        if texts is not None:
            given, text = console.save_texts(texts, Path(scratch)), "text"
        else:
            given = console.save_input(Path(scratch)) if data == "-" else Path(str(data))
        source = file_of(str(given), delimiter, quoting, header)
        if out is None or out == "-":
            streaming.predict_to(console.write_data, classifier._trained(), source, text=text, as_json=as_json)
            sys.stdout.flush()
        else:
            _predicted(classifier.predict_file(source, out, text=text), as_json)


def _predicted(summary: Summary, as_json: bool) -> None:
    more = f", {summary.resumed} of them by an earlier run" if summary.resumed else ""
    more += f"; {summary.errors} without a usable text" if summary.errors else ""
    more += f"; {summary.truncated} longer than the model reads" if summary.truncated else ""
    more += (
        f"; {summary.out_of_distribution} unlike its training texts in language or length" if summary.out_of_distribution else ""
    )
    new = (summary.rows - summary.resumed) / summary.seconds
    show(summary, f"{summary.rows} rows in {summary.out}{more}; {new:.0f} rows a second", as_json)
