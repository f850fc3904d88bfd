"""The model that a server answers with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import msgspec

from reviewguard import loading
from reviewguard.errors import ConfigError
from reviewguard.inference.model import TrainedModel
from reviewguard.serve.settings import Settings


@dataclass(frozen=True)
class Served:
    """A loaded model with its name.

    Attributes:
        name: Name in paths, answers and metrics.
        trained: The model.
    """

    name: str
    trained: TrainedModel

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the manifest, which contains the hashes of all files: it identifies the model with its decisions."""
        return hashlib.sha256(msgspec.json.encode(self.trained.manifest)).hexdigest()


def load(model: str | None, name: str, settings: Settings) -> Served:
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
    return Served(name, trained)
