"""The commands that run experiments: `reviewguard compare | ablate | transfer`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reviewguard import config
from reviewguard.cli.options import DataArgument
from reviewguard.errors import ConfigError

if TYPE_CHECKING:
    from reviewguard.experiments import Experiment

PresetsOption = Annotated[
    list[str],
    typer.Option(
        "--presets",
        "-p",
        help="What takes part, commas between: presets, recipes, the groups minilm and study; settings after plus signs, as in "
        "stella-qlora+loop.epochs=5.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results and the report; the same command goes on.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds of training, commas between.")]
JobsOption = Annotated[int, typer.Option(min=1, help="Runs side by side.")]
RateOption = Annotated[float, typer.Option(help="False-positive rate that thresholds are set for.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of all; may be repeated.")
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
    """Compare approaches on one identical split, beside a bag of words."""
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


def ablate(
    data: DataArgument,
    out: OutOption,
    preset: Annotated[str, typer.Option("--preset", "-p", help="What is varied: a preset, or a .toml file.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="A setting with its values; may be repeated. Default: the usual ones of the preset."
        ),
    ] = None,
    seeds: SeedsOption = "42,43,44",
    jobs: JobsOption = 1,
    max_fpr: RateOption = 0.01,
    assignments: SetOption = None,
) -> None:
    """Change one setting of a preset at a time, and see what it was worth."""
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
    data: Annotated[list[Path], typer.Argument(help="Sources: files as for the other commands.")],
    out: OutOption,
    presets: PresetsOption = ["minilm-finetune"],  # noqa: B006 (typer reads the default)
    by: Annotated[str, typer.Option(help="Column whose values are sources of their own, such as language.")] = "",
    leave_out: Annotated[
        str,
        typer.Option(
            help="Columns to leave out by instead, commas between, such as generator,domain: the first says what made the "
            "positives, the others which population a row is from."
        ),
    ] = "",
    seeds: SeedsOption = "42",
    jobs: JobsOption = 1,
    max_fpr: RateOption = 0.02,
    assignments: SetOption = None,
) -> None:
    """Train on each source, on all but one, and on all; score on every source."""
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
    return [one for given in presets for one in config.split_list(given)]


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in config.split_list(text)]
    except ValueError:
        raise ConfigError(f"seeds are whole numbers with commas between, such as 42,43,44; got {text!r}") from None


def this_command() -> str:
    """What was typed."""
    return shlex.join(["reviewguard", *sys.argv[1:]])


def _show(experiment: Experiment) -> None:
    typer.echo(experiment.to_text())
