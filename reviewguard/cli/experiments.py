"""Commands that run experiments: `reviewguard compare | ablate | transfer`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reviewguard import config
from reviewguard.cli.options import DataArgument
from reviewguard.errors import ConfigError, requires

if TYPE_CHECKING:
    from reviewguard.experiments import Experiment

PresetsOption = Annotated[
    list[str],
    typer.Option(
        "--presets",
        "-p",
        help="Comma-separated candidates: presets, recipes, or the groups minilm, study and study-mpnet; settings follow a plus "
        "sign, as in stella-qlora+loop.epochs=5.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for results and report; after an interruption, the same command resumes.")
]
SeedsOption = Annotated[str, typer.Option(help="Comma-separated training seeds.")]
JobsOption = Annotated[int, typer.Option(min=1, help="Number of concurrent runs.")]
RateOption = Annotated[float, typer.Option(help="False positive rate for which thresholds are set.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of all candidates; may be repeated.")
]


def compare(
    data: DataArgument,
    out: OutOption,
    presets: PresetsOption = ["minilm"],  # noqa: B006 (typer reads the default)
    seeds: SeedsOption = "42,43,44",
    jobs: JobsOption = 1,
    max_fpr: RateOption = 0.01,
    assignments: SetOption = None,
) -> None:
    """Compare presets and a TF-IDF baseline on one split."""
    from reviewguard import experiments

    settings = config.parse_assignments(assignments or [])
    _show(
        experiments.compare(
            data,
            _names(presets),
            out=out,
            seeds=_numbers(seeds),
            jobs=jobs,
            max_fpr=max_fpr,
            settings=settings,
            command=this_command(),
        )
    )


def ab(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Folder of the log, as given to `serve --log`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")],
    labels: Annotated[
        Path | None, typer.Argument(metavar="[LABELS]", help="Table with the columns key and label, as far as labels are known.")
    ] = None,
    positive: Annotated[str, typer.Option(help="The positive class; default: chosen as in training.")] = "",
) -> None:
    """Compare the two models of an A/B test, with bounds that hold however often you look."""
    with requires("experiments"):
        from reviewguard.experiments.ab import ab as compared
        from reviewguard.experiments.results import folder_at

    page = compared(log, labels, positive=positive, command=this_command())
    folder = folder_at(out)
    folder.mkdir(parents=True, exist_ok=True)
    page.save(folder)
    typer.echo("\n".join(page.short))
    typer.echo(f"report: {folder / 'report.html'}")


def ablate(
    data: DataArgument,
    out: OutOption,
    preset: Annotated[str, typer.Option("--preset", "-p", help="Preset or .toml file to vary.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Setting and its values; may be repeated. Default: the standard variations of the preset."
        ),
    ] = None,
    seeds: SeedsOption = "42,43,44",
    jobs: JobsOption = 1,
    max_fpr: RateOption = 0.01,
    assignments: SetOption = None,
) -> None:
    """Change one setting of a preset at a time and measure its effect."""
    from reviewguard import experiments

    settings = config.parse_assignments(assignments or [])
    _show(
        experiments.ablate(
            data,
            preset,
            vary or [],
            out=out,
            seeds=_numbers(seeds),
            jobs=jobs,
            max_fpr=max_fpr,
            settings=settings,
            command=this_command(),
        )
    )


def transfer(
    data: Annotated[list[Path], typer.Argument(help="Sources: files as for `compare`.")],
    out: OutOption,
    presets: PresetsOption = ["minilm-finetune"],  # noqa: B006 (typer reads the default)
    by: Annotated[str, typer.Option(help="Column whose values are treated as separate sources, such as language.")] = "",
    leave_out: Annotated[
        str,
        typer.Option(
            help="Comma-separated columns whose values are left out instead, as in generator,domain: the first names the source "
            "of the positives, the others the population of a row."
        ),
    ] = "",
    seeds: SeedsOption = "42",
    jobs: JobsOption = 1,
    max_fpr: RateOption = 0.02,
    assignments: SetOption = None,
) -> None:
    """Train on each source, on all but one, and on all sources; score on every source."""
    from reviewguard import experiments

    settings = config.parse_assignments(assignments or [])
    _show(
        experiments.transfer(
            data,
            _names(presets),
            out=out,
            by=by,
            leave_out=config.split_list(leave_out),
            seeds=_numbers(seeds),
            jobs=jobs,
            max_fpr=max_fpr,
            settings=settings,
            command=this_command(),
        )
    )


def _names(presets: list[str]) -> list[str]:
    return [name for group in presets for name in config.split_list(group)]


def _numbers(text: str) -> list[int]:
    try:
        return [int(seed) for seed in config.split_list(text)]
    except ValueError:
        raise ConfigError(f"seeds must be comma-separated whole numbers, such as 42,43,44; got {text!r}") from None


def this_command() -> str:
    """The command as it was typed."""
    return shlex.join(["reviewguard", *sys.argv[1:]])


def _show(experiment: Experiment) -> None:
    typer.echo(experiment.to_text())
