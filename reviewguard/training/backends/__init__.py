"""Backends: ways to train the model. Each public module of this package is a backend.

A backend module defines a frozen `Config` that extends `Recipe`, and the three functions of `Backend`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import Recipe, decode
from reviewguard.errors import ConfigError, nearest, requires
from reviewguard.inference.scoring import Floats

with requires("train"):
    from reviewguard.data.tokens import Tokenizer
    from reviewguard.models.text_model import TextModel
    from reviewguard.training.finetuning.checkpoint import Run
    from reviewguard.training.history import History


class Labelled(NamedTuple):
    """Rows to train on or to score.

    Attributes:
        texts: Normalised texts, n of them.
        y: Class indices, int64 (n,).
        weight: Positive row weights, float64 (n,). None: all weights are 1.
    """

    texts: list[str]
    y: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None


class Trained(NamedTuple):
    """A trained model, and its history if it was fine-tuned."""

    model: TextModel
    history: History | None = None


class Loaded(Protocol):
    """What a backend loads before training, such as `reviewguard.models.encoder.LoadedEncoder`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        ...

    def prepared(self, texts: Sequence[str]) -> Loaded:
        """Adapt to the normalised training texts, or do nothing."""
        ...

    def pinned(self, recipe: Recipe) -> Recipe:
        """The recipe that the model records, with the hashes of what was loaded and without local paths."""
        ...

    def files(self) -> Mapping[str, bytes | Path]:
        """Loaded files that the model must contain because they cannot be fetched again, by their path in the bundle."""
        ...


class Backend(Protocol):
    """Interface of a backend module."""

    Config: type[Recipe]

    def load(self, config: Recipe) -> Loaded:
        """Load what training starts from."""
        ...

    def train(
        self,
        train: Labelled,
        validation: Labelled | None,
        *,
        classes: Sequence[str],
        encoder: Loaded,
        config: Recipe,
        run: Run,
    ) -> Trained:
        """Train a model.

        Args:
            train: Rows to fit on, with at least one row of each class.
            validation: Rows for early stopping, never for fitting. None: no validation rows.
            classes: Class names, in the order of the logits.
            encoder: The result of `load`.
            config: Settings of this backend.
            run: Folder of the checkpoints, and whether to resume.
        """
        ...

    def logits(self, model: TextModel, texts: list[str], *, encoder: Loaded) -> Floats:
        """Compute logits, float32 (n, classes), of normalised texts, in the cheapest way after training."""
        ...


def backend_names() -> list[str]:
    """Names of the backends: the public modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain data, checked against the settings of its backend.

    Raises:
        ConfigError: If the backend, a setting or a value is not allowed.
    """
    return decode(values, get_backend(str(values.get("backend", ""))).Config)


def get_backend(name: str) -> Backend:
    """Import a backend by name.

    Raises:
        ConfigError: If there is no backend of this name.
    """
    if name not in backend_names():
        raise ConfigError(f"no backend is called {name!r}; {nearest(name, backend_names())}")
    return cast(Backend, importlib.import_module(f"{__name__}.{name}"))
