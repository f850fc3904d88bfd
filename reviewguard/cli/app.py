"""The command-line application: commands, error messages and exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from reviewguard.cli import console, data, experiments, models, serve
from reviewguard.errors import ReviewGuardError, TrainingInterrupted

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    data.train,
    data.evaluate,
    data.stress,
    models.merge,
    models.export,
    models.decide,
    models.adapt,
    models.push,
    data.predict,
    experiments.compare,
    experiments.ablate,
    experiments.transfer,
    models.presets,
    serve.serve,
    experiments.ab,
):
    app.command()(command)


def main() -> None:
    """Run the application; an error of reviewguard or the system prints one line on stderr and exits with status 1."""
    with console.lasting():
        try:
            app()
        except (ReviewGuardError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, ReviewGuardError):
                console.silence(sys.stdout)  # if stdout caused the error, it would fail again at exit
            typer.secho(f"error: {error}", err=True, fg="red")
            # By convention, a program that ends on a signal exits with 128 plus the signal number.
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
