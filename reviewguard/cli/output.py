"""Shared functions of the commands: load a model, and print output as text or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from reviewguard import config, files
from reviewguard.errors import ConfigError

if TYPE_CHECKING:
    from reviewguard.classifier import Classifier

#: Notice printed whenever the built-in model is used.
BUILT_IN: Final = (
    "The built-in model flags English reviews that a language model has probably generated; it does not detect lies written by "
    "people. It misses some generated reviews and flags some genuine ones, so have a person review its results."
)


def loaded(model: str | None) -> Classifier:
    """Load the model that `--model` names; None: the built-in model.

    Raises:
        ConfigError: If the name is a preset, or neither a folder nor a Hub id.
    """
    from reviewguard.classifier import Classifier

    announce(model)
    if model in config.preset_names():
        raise ConfigError(
            f"{model!r} is a preset, not a trained model; run: reviewguard train DATA --preset {model} --out FOLDER"
        )
    if model is not None and "/" not in model and not files.expanded(model).is_dir():
        raise ConfigError(
            f"there is no folder {model!r}; pass one that `reviewguard train` or `export` wrote, or a model on the Hub "
            "(owner/name), or omit it to use the built-in model"
        )
    return Classifier.from_pretrained(model)


def announce(model: str | None) -> None:
    """Print the notice on the built-in model to standard error, if that model is used."""
    from reviewguard.loading import BUILTIN

    if model is None:
        typer.echo(f"{BUILT_IN} Model card: {BUILTIN / 'README.md'}", err=True)


def show(value: Any, text: str, as_json: bool) -> None:
    """Print a result."""
    # JSON is printed in ASCII, which any console can display.
    typer.echo(json.dumps(json.loads(msgspec.json.encode(value)), indent=1) if as_json else text)
