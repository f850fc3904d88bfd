"""The model that a server answers with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from reviewguard import loading
from reviewguard.errors import ConfigError
from reviewguard.inference.model import TrainedModel
from reviewguard.serve.settings import Settings


@dataclass(frozen=True)
class Served:
    """What identifies a model in answers, metrics and logs.

    Attributes:
        name: Name of the model.
        sha256: SHA-256 of the manifest, which contains the hashes of all files: it identifies the model with its decisions.
        classes: Names of the classes.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]


def load(model: str | None, name: str, settings: Settings) -> tuple[Served, TrainedModel]:
    """Load a model for serving, and compute a text so that the first request is not slower.

    Args:
        model: Folder or Hub id. None: the built-in model.
        name: Name of the model.
        settings: Engine and precision, and the commit on the Hub.

    Raises:
        BundleError: If the model cannot be loaded.
        ConfigError: If the model is a preset, which is not trained.
    """
    bundle = loading.find(model, settings.revision)
    if bundle is None:
        raise ConfigError(f"{model} is a preset, which is not trained; pass the folder or the Hub id of a trained model")
    trained = loading.load(bundle, settings.runtime, settings.precision, settings.threads)
    trained.predictions(["A kettle that boils."])
    sha256 = hashlib.sha256(msgspec.json.encode(trained.manifest)).hexdigest()
    return Served(name, sha256, tuple(trained.manifest.classes)), trained


def require_same_classes(champion: Served, *challenger: Served) -> None:
    """Check that the decisions of two models can be compared.

    Raises:
        ConfigError: If they have different classes.
    """
    for other in challenger:
        if other.classes != champion.classes:
            raise ConfigError("champion and challenger have different classes, so their decisions cannot be compared")
