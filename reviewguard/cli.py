"""The command line: `reviewguard train`, `predict` and the others; those of experiments are in `cli_experiments`."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

from reviewguard import cli_experiments, config, files
from reviewguard.bundle import check_target
from reviewguard.cli_experiments import DataArgument
from reviewguard.errors import ConfigError, ReviewGuardError, TrainingInterrupted, requires

if TYPE_CHECKING:
    from reviewguard.classifier import Classifier
    from reviewguard.decision import OperatingPoint, Triage
    from reviewguard.evaluation.operating import Calibration
    from reviewguard.evaluation.reading import Reading
    from reviewguard.streaming import Summary

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

#: What everybody should know who takes it without asking.
IN_THE_BOX: Final = (
    "The model in the box reads English reviews and tells those that language models wrote, not lies that people wrote; it "
    "misses some and accuses some, so let people decide."
)
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder of a trained model, or its Hub id; default: the model in the box.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except ReviewGuardError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        # By custom, a program that a signal ended exits with 128 and its number.
        raise SystemExit(128 + error.signum if isinstance(error, TrainingInterrupted) else 1) from None


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("reviewguard"))
        raise typer.Exit


@app.callback()
def _options(
    version_: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train, evaluate, export and run text classifiers."""


@app.command()
def train(
    data: DataArgument,
    preset: Annotated[str, typer.Option("--preset", "-p", help="A name from `reviewguard presets`, or a .toml file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained model.")],
    validation: Annotated[Path | None, typer.Option(help="Validation rows; without it, rows of DATA are held out.")] = None,
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
    from reviewguard.classifier import Classifier

    check_target(out)  # before the work, not after it
    if dry_run:
        found = Classifier(preset, **config.parse_assignments(assignments or [])).rehearse(data, validation, processes=processes)
        _show(msgspec.to_builtins(found), found.to_text(), as_json)
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("reviewguard").setLevel(logging.INFO)
    classifier = Classifier(preset, **config.parse_assignments(assignments or []))
    report = classifier.train(data, validation, run_dir=run_dir, resume="if-possible" if resume_if_possible else resume)
    if files.is_main_process():
        typer.echo(report.to_json() if as_json else report.to_text())
    classifier.save(out)
    if files.is_main_process():
        typer.echo(f"saved to {out}", err=True)


@app.command()
def evaluate(
    data: DataArgument,
    model: ModelOption = None,
    split: Annotated[str, typer.Option(help="Only rows with this value in the column of splits.")] = "",
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "",
    label: Annotated[str, typer.Option(help="Column of the labels.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on labelled rows."""
    report = _loaded(model).evaluate(data, split=split, text=text, label=label)
    typer.echo(report.to_json() if as_json else report.to_text())


@app.command()
def stress(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or its Hub id; built-in: the built-in model.")],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the report with a chart; needs reviewguard[experiments].")
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Name of an attack; may be repeated. Default: all.")] = None,
    split: Annotated[str, typer.Option(help="Only rows with this value in the column of splits.")] = "",
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "",
    label: Annotated[str, typer.Option(help="Column of the labels.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Score a trained model on labelled rows under attack: look-alike letters, typos, casual style and others."""
    from reviewguard.data.perturb import ATTACKS

    classifier = _loaded(None if model == "built-in" else model)
    report = classifier.stress(data, attacks=attack or list(ATTACKS), split=split, text=text, label=label)
    if out is not None:
        with requires("experiments"):
            from reviewguard.experiments.stress import stress_page
        out.mkdir(parents=True, exist_ok=True)
        stress_page(report, cli_experiments.this_command()).save(out)
        files.replace(out / "report.json", report.to_json().encode())
    typer.echo(report.to_json() if as_json else report.to_text())


@app.command()
def merge(
    model: Annotated[str, typer.Argument(help="Folder of a model with adapters, or its Hub id.")],
    data: Annotated[Path, typer.Argument(help="Rows whose texts the change is judged on, such as your validation rows.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the merged model.")],
    base: Annotated[
        Literal["trained", "original"],
        typer.Option(help="Merge into the weights that the adapters were trained on, dequantised, or into the published ones."),
    ] = "trained",
    split: Annotated[str, typer.Option(help="Only rows with this value in the column of splits.")] = "",
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Fold a fine-tuned model's adapters into its weights, and say what that changes."""
    from reviewguard.classifier import Classifier
    from reviewguard.data.reviews import read
    from reviewguard.data.split import only
    from reviewguard.export.merge import MergeReport

    check_target(out)
    classifier, reviews = Classifier.from_pretrained(model), read(data, text=text)
    if split:
        reviews = only(reviews, str(classifier.manifest.recipe["data"]["split"]), split)
    merged = classifier.merge([text for text in reviews.texts if text is not None], base)
    merged.save(out)
    assert merged.manifest.merged is not None
    report = msgspec.convert(merged.manifest.merged, MergeReport)
    _show(merged.manifest.merged, f"{report.to_text()}\nsaved to {out}", as_json)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or its Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the export.")],
    validation: Annotated[Path | None, typer.Option(help="Labelled rows to judge the export by.")] = None,
    split: Annotated[str, typer.Option(help="Of them, only rows with this value in the column of splits.")] = "",
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a second graph in eight bits; needs --validation, of 1,000 rows at least.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model as one ONNX graph that predicts with the base install alone, if it is true to the model."""
    from reviewguard.classifier import Classifier

    report = Classifier.from_pretrained(model).export(out, validation, split=split, int8=int8)
    _show(msgspec.to_builtins(report), f"{report.to_text()}\nexported to {out}", as_json)


@app.command()
def decide(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model with its decisions.")],
    model: Annotated[
        str | None, typer.Argument(help="Folder of a trained model or an export, or its Hub id; default: the model in the box.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled rows that it was not trained on; default: its own validation rows.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of them, only rows with this value in the column of splits.")] = "",
    windows: Annotated[
        bool, typer.Option("--windows", help="Read long texts in overlapping windows, if that is better on --data.")
    ] = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Make probabilities mean what they say.")] = False,
    max_fpr: Annotated[float | None, typer.Option(help="Highest false-positive rate of the positive class.")] = None,
    by_length: Annotated[
        str, typer.Option(help="With --max-fpr: shortest text of each band of lengths, in words, such as 8,20,40,80.")
    ] = "",
    group: Annotated[str, typer.Option(help="With --max-fpr: column of groups, in each of which the rate is held.")] = "",
    error_rate: Annotated[float | None, typer.Option(help="Highest share of each class that triage may give another.")] = None,
    review_rate: Annotated[float | None, typer.Option(help="With --one-sided: share of negatives that may go to review.")] = None,
    one_sided: Annotated[
        bool, typer.Option("--one-sided", help="Decide on the positive class only; other texts need review or are not flagged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set a model's calibration, operating point and abstention on held-out rows."""
    triage = error_rate is not None or review_rate is not None
    if not windows and not calibrate and max_fpr is None and not triage:
        raise ConfigError(
            "there is nothing to decide; give at least one of --windows, --calibrate, --max-fpr, --error-rate, --review-rate"
        )
    if windows and data is None:
        raise ConfigError("--windows needs texts; name labelled rows that the model was not trained on with --data")
    if (by_length or group) and max_fpr is None:
        raise ConfigError("--by-length and --group are for thresholds; give --max-fpr too")
    if one_sided and not triage:
        raise ConfigError("--one-sided is about abstention; give --review-rate or --error-rate too")
    check_target(out)
    classifier = _loaded(model)
    found: dict[str, Reading | Calibration | OperatingPoint | Triage] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if windows:
            assert data is not None
            found["windows"] = classifier.set_windows(data, split=split)
        if calibrate:
            found["calibration"] = classifier.calibrate(data, split=split)
        if max_fpr is not None:
            found["operating_point"] = classifier.set_operating_point(
                data, max_fpr=max_fpr, by_length=_bounds(by_length), group=group, split=split
            )
        if triage:
            found["triage"] = classifier.set_triage(
                data, error_rate=error_rate, review_rate=review_rate, one_sided=one_sided, split=split
            )
    for warning in caught:
        typer.secho(f"warning: {warning.message}", err=True, fg="yellow")
    classifier.save(out)
    text = "\n\n".join(f"{name.replace('_', ' ')}\n{one.to_text()}" for name, one in found.items())
    _show(msgspec.to_builtins(found), f"{text}\n\nsaved to {out}", as_json)


def _bounds(listed: str) -> list[int]:
    try:
        return [int(bound) for bound in config.split_list(listed)]
    except ValueError:
        raise ConfigError(f"--by-length is {listed!r}; it lists whole numbers of words, such as 8,20,40,80") from None


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="Folder of a trained model or an export, or its Hub id.")],
    repo: Annotated[str, typer.Argument(help="Where to: owner/name on the Hugging Face Hub; made if it is not there.")],
    revision: Annotated[str | None, typer.Option(help="Branch, made if it is not there; default: main.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a repository that is made: only its owner sees it.")] = False,
    license: Annotated[str | None, typer.Option(help="For the model card: an identifier such as apache-2.0.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="For the model card: Hub id of the data; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a model to the Hugging Face Hub, as the user of HF_TOKEN or `hf auth login`."""
    from reviewguard.classifier import Classifier

    commit = Classifier.from_pretrained(model).push_to_hub(
        repo, revision=revision, private=private or None, license=license, datasets=dataset or ()
    )
    _show({"repo": repo, "commit": commit}, f"uploaded to {repo}, commit {commit}", as_json)


@app.command()
def predict(
    data: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV or JSONL with a column of texts, of any length. With --engine ray: Parquet, a folder of it, or its URL"
        ),
    ],
    model: ModelOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="CSV, TSV or JSONL; default: standard output. With --engine ray: a folder or its URL."),
    ] = None,
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "",
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="This process, or all cores of the Ray cluster that RAY_ADDRESS names."),
    ] = "local",
    as_json: JsonOption = False,
) -> None:
    """Add a predicted label and its probability to every row; run again after a kill, it goes on where it was."""
    from reviewguard import streaming

    if engine == "ray":
        if out is None:
            raise ConfigError("many actors cannot write to standard output; name a folder with --out")
        from reviewguard import scale

        _say_what_it_is(model)
        _predicted(scale.predict_parquet(data, out, model, text=text), as_json)
        return
    classifier = _loaded(model)
    if out is None:
        streaming.predict_to_stdout(classifier, Path(data), text=text, as_json=as_json)
    else:
        _predicted(streaming.predict_file(classifier, Path(data), Path(out), text=text), as_json)


def _predicted(summary: Summary, as_json: bool) -> None:
    more = f", {summary.resumed} of them by an earlier run" if summary.resumed else ""
    more += f"; {summary.errors} without a usable text" if summary.errors else ""
    more += f"; {summary.truncated} longer than the model reads" if summary.truncated else ""
    more += f"; {summary.unfamiliar} unlike its training texts in language or length" if summary.unfamiliar else ""
    new = (summary.rows - summary.resumed) / summary.seconds
    _show(msgspec.to_builtins(summary), f"{summary.rows} rows in {summary.out}{more}; {new:.0f} rows a second", as_json)


cli_experiments.register(app)


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """List the recipes that ship with reviewguard."""
    described = {name: str(config.load_preset(name)["description"]) for name in config.preset_names()}
    width = max(map(len, described))
    _show(described, "\n".join(f"{name:<{width}}  {about}" for name, about in described.items()), as_json)


def _loaded(model: str | None) -> Classifier:
    from reviewguard.classifier import Classifier

    _say_what_it_is(model)
    return Classifier.from_pretrained(model)


def _say_what_it_is(model: str | None) -> None:
    from reviewguard.loading import DEFAULT_MODEL

    if model is None:
        typer.echo(f"{IN_THE_BOX} Its card: {DEFAULT_MODEL / 'README.md'}", err=True)


def _show(value: dict[str, Any], text: str, as_json: bool) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode() if as_json else text)
