"""Commands that read data: `reviewguard train | evaluate | stress | predict`."""

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
        list[str], typer.Argument(metavar="DATA...", help="Files as for `evaluate`; several files or a wildcard are combined.")
    ],
    preset: Annotated[str, typer.Option("--preset", "-p", help="Name from `reviewguard presets`, or a .toml file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained model.")],
    validation: Annotated[str | None, typer.Option(help="File of validation rows; default: rows of DATA are held out.")] = None,
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and logs of fine-tuning; default: a folder in reviewguard-runs/.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest complete checkpoint.")] = False,
    resume_if_possible: Annotated[
        bool, typer.Option("--resume-if-possible", help="Resume if there is a checkpoint, or else start over.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read, clean and check the data without training or writing files.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="With --dry-run: total number of processes that the launcher will start.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier and report its results next to those of a TF-IDF baseline."""
    files_of(data)  # report a missing file before torch is loaded
    from reviewguard.classifier import Classifier

    check_target(out)  # fail before training
    settings = data_settings(text, label, delimiter, quoting, header) | config.parse_assignments(assignments or [])
    classifier = Classifier(preset, **settings)
    if dry_run:
        plan = classifier.dry_run(data, validation, processes=processes)
        show(plan, plan.to_text(), as_json)
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("reviewguard").setLevel(logging.INFO)
    report = classifier.train(data, validation, run_dir=run_dir, resume="if-possible" if resume_if_possible else resume)
    classifier.save(out)  # save before printing, which can fail
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
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model; `built-in`: the built-in model.")],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the report and its chart; requires the extra `experiments`.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help=f"Attack to run; may be repeated. Default: all of {', '.join(ATTACKS)}.")
    ] = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on labelled rows under attack: look-alike letters, typos, casual style and others."""
    if out is not None:  # fail before scoring
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
            help="CSV, TSV, JSON, JSONL, Parquet or Excel file with a text column; -: CSV or JSONL from standard input. With "
            "--engine ray: a Parquet file, a folder of Parquet files, or a URL.",
        ),
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="CSV, TSV or JSONL file; default and -: standard output. With --engine ray: a folder or a URL."
        ),
    ] = None,
    texts: Annotated[list[str] | None, typer.Option("--input", help="Text to predict instead of DATA; may be repeated.")] = None,
    text: TextOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: this process; ray: all cores of the Ray cluster at RAY_ADDRESS."),
    ] = "local",
    as_json: JsonOption = False,
) -> None:
    """Add the predicted label and class probabilities to every row. After an interruption, the same command resumes."""
    from reviewguard.inference import streaming

    if (data is None) == (texts is None):
        raise ConfigError("pass either DATA, which may be - for standard input, or --input TEXT")
    if engine == "ray":
        if out is None or data is None:
            raise ConfigError("--engine ray reads Parquet and writes a folder; pass DATA and --out")
        from reviewguard import scale

        announce(model)
        _predicted(scale.predict_parquet(data, out, model, text=text), as_json)
        return
    classifier = loaded(model)
    with tempfile.TemporaryDirectory() as scratch:
        if texts is not None:
            path, text = console.save_texts(texts, Path(scratch)), "text"
        else:
            path = console.save_input(Path(scratch)) if data == "-" else Path(str(data))
        source = file_of(str(path), delimiter, quoting, header)
        if out is None or out == "-":
            streaming.predict_to(console.write_data, classifier._trained(), source, text=text, as_json=as_json)
            sys.stdout.flush()
        else:
            _predicted(classifier.predict_file(source, out, text=text), as_json)


def _predicted(summary: Summary, as_json: bool) -> None:
    details = f", {summary.resumed} of them from an earlier run" if summary.resumed else ""
    details += f"; {summary.errors} without a usable text" if summary.errors else ""
    details += f"; {summary.truncated} truncated" if summary.truncated else ""
    details += f"; {summary.out_of_distribution} out-of-distribution (language or length)" if summary.out_of_distribution else ""
    rate = (summary.rows - summary.resumed) / summary.seconds
    show(summary, f"{summary.rows} rows in {summary.out}{details}; {rate:.0f} rows per second", as_json)
