"""Commands that change or upload a trained model: `reviewguard merge | export | decide | adapt | push | presets`."""

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
    from reviewguard.evaluation.calibration import Calibration
    from reviewguard.evaluation.windows import WindowChoice


def merge(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model with adapters.")],
    data: Annotated[str, typer.Argument(help="Rows on whose texts the models are compared, such as your validation rows.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the merged model.")],
    base: Annotated[
        Literal["trained", "original"],
        typer.Option(help="Weights to merge into: the dequantised ones of training (trained), or the published ones (original)."),
    ] = "trained",
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    as_json: JsonOption = False,
) -> None:
    """Merge the adapters of a fine-tuned model into its weights and report how predictions change."""
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
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the export.")],
    validation: Annotated[str | None, typer.Option(help="Labelled rows on which the export is checked.")] = None,
    split: Annotated[str, typer.Option(help="Use only validation rows with this value in the split column.")] = "",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write an int8 graph; requires --validation with at least 1,000 rows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a trained model to one ONNX graph that needs only the base install, after checking its predictions."""
    report = loaded(model).export(out, validation, split=split, int8=int8)
    show(report, f"{report.to_text()}\nexported to {out}", as_json)


def decide(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model with the new decision settings.")],
    model: Annotated[
        str | None, typer.Argument(help="Folder or Hub id of a trained model or an export; default: the built-in model.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled rows that the model was not trained on; default: its validation rows.")
    ] = None,
    split: SplitOption = "",
    text: TextOption = "",
    label: LabelOption = "",
    delimiter: DelimiterOption = "",
    quoting: QuotingOption = "auto",
    header: HeaderOption = True,
    windows: Annotated[
        bool, typer.Option("--windows", help="Read long texts in overlapping windows, if that improves results on --data.")
    ] = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Calibrate probabilities by temperature scaling.")] = False,
    max_fpr: Annotated[float | None, typer.Option(help="Set the threshold for this maximum false positive rate.")] = None,
    by_length: Annotated[
        str, typer.Option(help="With --max-fpr: minimum length of each band in words, such as 8,20,40,80.")
    ] = "",
    group: Annotated[str, typer.Option(help="With --max-fpr: column of groups; the rate is limited in each of them.")] = "",
    error_rate: Annotated[float | None, typer.Option(help="Maximum share of each class that is given another class.")] = None,
    review_rate: Annotated[float | None, typer.Option(help="With --one-sided: share of negatives that may need review.")] = None,
    one_sided: Annotated[
        bool, typer.Option("--one-sided", help="Never decide on the negative class; other texts need review or are not flagged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set a model's calibration, operating point and abstention on held-out rows."""
    abstention = error_rate is not None or review_rate is not None
    if not windows and not calibrate and max_fpr is None and not abstention:
        raise ConfigError(
            "there is nothing to set; pass at least one of --windows, --calibrate, --max-fpr, --error-rate, --review-rate"
        )
    if windows and data is None:
        raise ConfigError("--windows requires texts; pass labelled rows that the model was not trained on with --data")
    if (by_length or group) and max_fpr is None:
        raise ConfigError("--by-length and --group apply to thresholds; also pass --max-fpr")
    if one_sided and not abstention:
        raise ConfigError("--one-sided applies to abstention; also pass --review-rate or --error-rate")
    check_target(out)
    classifier = loaded(model)
    rows = (
        None
        if data is None
        else labelled_rows(classifier.manifest, file_of(data, delimiter, quoting, header), split=split, text=text, label=label)
    )
    reports: dict[str, WindowChoice | Calibration | OperatingPoint | Abstention] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if windows:
            reports["windows"] = classifier.set_windows(rows)
        if calibrate:
            reports["calibration"] = classifier.calibrate(rows)
        if max_fpr is not None:
            bounds = _bounds(by_length)
            reports["operating_point"] = classifier.set_operating_point(rows, max_fpr=max_fpr, by_length=bounds, group=group)
        if abstention:
            reports["abstention"] = classifier.set_abstention(
                rows, error_rate=error_rate, review_rate=review_rate, one_sided=one_sided
            )
    for warning in caught:
        typer.secho(f"warning: {warning.message}", err=True, fg="yellow")
    classifier.save(out)
    text_report = "\n\n".join(f"{name.replace('_', ' ')}\n{report.to_text()}" for name, report in reports.items())
    show(reports, f"{text_report}\n\nsaved to {out}", as_json)


def _bounds(listed: str) -> list[int]:
    try:
        return [int(bound) for bound in config.split_list(listed)]
    except ValueError:
        raise ConfigError(f"--by-length is {listed!r}; it must list numbers of words, such as 8,20,40,80") from None


def adapt(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapted model.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or Hub id of an export; default: the built-in model.")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="At least 100 texts of the negative class, such as your own genuine reviews; default: those stored in the model."
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
    """Adapt an export to a new generator with 10 to 100 labelled examples, at an unchanged false positive rate."""
    from reviewguard.data.reviews import read

    check_target(out)
    classifier = loaded(model)
    texts, labels = labelled_rows(
        classifier.manifest, file_of(data, delimiter, quoting, header), split=split, text=text, label=label
    ).require_complete()
    reference_texts = None
    if references is not None:
        rows = read(file_of(references, delimiter, quoting, header), text=text)
        positive = classifier.manifest.positive
        reference_texts = [
            sample
            for sample, its_label in zip(rows.texts, rows.labels, strict=True)
            if sample is not None and its_label != positive
        ]
    report = classifier.adapt(texts, labels, references=reference_texts)
    classifier.save(out)
    show(report, f"{report.to_text()}\nsaved to {out}", as_json)


def push(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model or an export.")],
    repo: Annotated[str, typer.Argument(help="Hugging Face Hub repository, owner/name; created if it does not exist.")],
    revision: Annotated[str | None, typer.Option(help="Branch, created if it does not exist; default: main.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a newly created repository private.")] = False,
    license: Annotated[str | None, typer.Option(help="Licence identifier for the model card, such as apache-2.0.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Hub id of the data for the model card; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a model to the Hugging Face Hub, with the token of HF_TOKEN or `hf auth login`."""
    commit = loaded(model).push_to_hub(repo, revision=revision, private=private or None, license=license, datasets=dataset or ())
    show({"repo": repo, "commit": commit}, f"uploaded to {repo}, commit {commit}", as_json)


def presets(as_json: JsonOption = False) -> None:
    """List the presets of reviewguard."""
    descriptions = {name: str(config.load_preset(name)["description"]) for name in config.preset_names()}
    width = max(map(len, descriptions))
    lines = [f"{name:<{width}}  {description}" for name, description in descriptions.items()]
    show(descriptions, "\n".join(lines), as_json)
