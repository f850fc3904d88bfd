"""Commands that change a trained model or move it: `reviewguard merge | export | decide | adapt | push | presets`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from reviewguard import config
from reviewguard.bundle.folder import check_target
from reviewguard.bundle.manifest import ADAPTER
from reviewguard.cli.options import (
    DataArgument,
    DelimiterOption,
    HeaderOption,
    JsonOption,
    LabelOption,
    QuotingOption,
    SplitOption,
    TextOption,
    file_of,
)
from reviewguard.cli.output import loaded, show
from reviewguard.errors import ConfigError
from reviewguard.inference.rows import labelled_rows

if TYPE_CHECKING:
    from reviewguard.bundle.decision import Abstention, OperatingPoint
    from reviewguard.evaluation.operating import Calibration
    from reviewguard.evaluation.windows import WindowChoice


def merge(
    model: Annotated[str, typer.Argument(help="Folder of a model with adapters, or its Hub id.")],
    data: Annotated[str, typer.Argument(help="Rows whose texts the change is judged on, such as your validation rows.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the merged model.")],
    base: Annotated[
        Literal["trained", "original"],
        typer.Option(help="Merge into the weights that the adapters were trained on, dequantised, or into the published ones."),
    ] = "trained",
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Fold a fine-tuned model's adapters into its weights, and say what that changes."""
    from reviewguard.export.merge import MergeReport

    check_target(out, never=ADAPTER)
    classifier = loaded(model)
    reviews = labelled_rows(classifier.manifest, file_of(data, delimiter, quoting, header), split=split, text=text, label=label)
    merged = classifier.merge([text for text in reviews.texts if text is not None], base)
    merged.save(out)
    assert merged.manifest.merged is not None
    report = msgspec.convert(merged.manifest.merged, MergeReport)
    show(merged.manifest.merged, f"{report.to_text()}\nsaved to {out}", as_json)


def export(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or its Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the export.")],
    validation: Annotated[str | None, typer.Option(help="Labelled rows to judge the export by.")] = None,
    split: Annotated[str, typer.Option(help="Of them, only rows with this value in the column of splits.")] = "",
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a second graph in eight bits; needs --validation, of 1,000 rows at least.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model as one ONNX graph that predicts with the base install alone, if it is true to the model."""
    report = loaded(model).export(out, validation, split=split, int8=int8)
    show(report, f"{report.to_text()}\nexported to {out}", as_json)


def decide(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model with its decisions.")],
    model: Annotated[
        str | None, typer.Argument(help="Folder of a trained model or an export, or its Hub id; default: the built-in model.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows that it was not trained on; default: its own validation rows.")
    ] = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    windows: Annotated[
        bool, typer.Option("--windows", help="Read long texts in overlapping windows, if that is better on --data.")
    ] = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Make probabilities mean what they say.")] = False,
    max_fpr: Annotated[float | None, typer.Option(help="Highest false-positive rate of the positive class.")] = None,
    by_length: Annotated[
        str, typer.Option(help="With --max-fpr: shortest text of each band of lengths, in words, such as 8,20,40,80.")
    ] = "",
    group: Annotated[str, typer.Option(help="With --max-fpr: column of groups, in each of which the rate is held.")] = "",
    error_rate: Annotated[float | None, typer.Option(help="Highest share of each class that may be given another.")] = None,
    review_rate: Annotated[float | None, typer.Option(help="With --one-sided: share of negatives that may go to review.")] = None,
    one_sided: Annotated[
        bool, typer.Option("--one-sided", help="Decide on the positive class only; other texts need review or are not flagged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set a model's calibration, operating point and abstention on held-out rows."""
    abstention = error_rate is not None or review_rate is not None
    if not windows and not calibrate and max_fpr is None and not abstention:
        raise ConfigError(
            "there is nothing to decide; give at least one of --windows, --calibrate, --max-fpr, --error-rate, --review-rate"
        )
    if windows and data is None:
        raise ConfigError("--windows needs texts; name labelled rows that the model was not trained on with --data")
    if (by_length or group) and max_fpr is None:
        raise ConfigError("--by-length and --group are for thresholds; give --max-fpr too")
    if one_sided and not abstention:
        raise ConfigError("--one-sided is about abstention; give --review-rate or --error-rate too")
    check_target(out)
    classifier = loaded(model)
    rows = (
        None
        if data is None
        else labelled_rows(classifier.manifest, file_of(data, delimiter, quoting, header), split=split, text=text, label=label)
    )
    found: dict[str, WindowChoice | Calibration | OperatingPoint | Abstention] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if windows:
            found["windows"] = classifier.set_windows(rows)
        if calibrate:
            found["calibration"] = classifier.calibrate(rows)
        if max_fpr is not None:
            bounds = _bounds(by_length)
            found["operating_point"] = classifier.set_operating_point(rows, max_fpr=max_fpr, by_length=bounds, group=group)
        if abstention:
            found["abstention"] = classifier.set_abstention(
                rows, error_rate=error_rate, review_rate=review_rate, one_sided=one_sided
            )
    for warning in caught:
        typer.secho(f"warning: {warning.message}", err=True, fg="yellow")
    classifier.save(out)
    told = "\n\n".join(f"{name.replace('_', ' ')}\n{one.to_text()}" for name, one in found.items())
    show(found, f"{told}\n\nsaved to {out}", as_json)


def _bounds(listed: str) -> list[int]:
    try:
        return [int(bound) for bound in config.split_list(listed)]
    except ValueError:
        raise ConfigError(f"--by-length is {listed!r}; it lists whole numbers of words, such as 8,20,40,80") from None


def adapt(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapted model.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder of an export, or its Hub id; default: the built-in model.")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="At least 100 texts of the other class, such as genuine reviews of your own; default: those of the model."
        ),
    ] = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Adapt an export to a new generator by 10 to 100 labelled examples, at an unchanged false positive rate."""
    from reviewguard.data.reviews import read

    check_target(out)
    classifier = loaded(model)
    texts, labels = labelled_rows(
        classifier.manifest, file_of(data, delimiter, quoting, header), split=split, text=text, label=label
    ).require_complete()
    beside = None
    if references is not None:
        rows = read(file_of(references, delimiter, quoting, header), text=text)
        positive = classifier.manifest.positive
        beside = [own for own, its in zip(rows.texts, rows.labels, strict=True) if own is not None and its != positive]
    report = classifier.adapt(texts, labels, references=beside)
    classifier.save(out)
    show(report, f"{report.to_text()}\nsaved to {out}", as_json)


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
    commit = loaded(model).push_to_hub(repo, revision=revision, private=private or None, license=license, datasets=dataset or ())
    show({"repo": repo, "commit": commit}, f"uploaded to {repo}, commit {commit}", as_json)


def presets(as_json: JsonOption = False) -> None:
    """List the recipes that ship with reviewguard."""
    described = {name: str(config.load_preset(name)["description"]) for name in config.preset_names()}
    width = max(map(len, described))
    show(described, "\n".join(f"{name:<{width}}  {about}" for name, about in described.items()), as_json)
