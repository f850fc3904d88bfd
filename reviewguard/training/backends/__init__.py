"""Backends: each trains the one model in its own way. A new backend is a new module in this folder.

A backend module has a frozen `Config` that extends `Recipe`, and the three functions of `Backend`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import Recipe, decode
from reviewguard.errors import ConfigError, nearest, requires
from reviewguard.inference.scoring import Floats

with requires("train"):
    from reviewguard.models.encoder import LoadedEncoder
    from reviewguard.models.text_model import TextModel
    from reviewguard.training.finetuning.checkpoint import Run
    from reviewguard.training.history import History


class Labelled(NamedTuple):
    """Rows to train on or to score.

    Attributes:
        texts: Normalised, n of them.
        y: Index of each one's class, int64 (n,).
        weight: Of each row, float64 (n,), positive; None: all are 1.
    """

    texts: list[str]
    y: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None


class Trained(NamedTuple):
    """A trained model, and what its training was like where that took more than one step."""

    model: TextModel
    history: History | None = None


class Backend(Protocol):
    """What a module in this folder offers."""

    Config: type[Recipe]

    def load(self, config: Recipe) -> LoadedEncoder:
        """Load the encoder as training needs it."""
        ...

    def train(
        self,
        train: Labelled,
        validation: Labelled | None,
        *,
        classes: Sequence[str],
        encoder: LoadedEncoder,
        config: Recipe,
        run: Run,
    ) -> Trained:
        """Train a model.

        Args:
            train: Rows to fit on; of each class at least one.
            validation: Rows to choose by when to stop, never to fit on; None: there are none.
            classes: Names, in the order of the logits.
            encoder: What `load` gave.
            config: Of this backend.
            run: Where checkpoints go.
        """
        ...

    def logits(self, model: TextModel, texts: list[str], *, encoder: LoadedEncoder) -> Floats:
        """Logits, float32 (n, classes), of normalised texts, by the way that is cheapest right after training."""
        ...


def backend_names() -> list[str]:
    """Names of the backends: the public modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Settings as plain data, checked by the backend that they name.

    Raises:
        ConfigError: If the backend, a setting or its value is not allowed.
    """
    return decode(values, get_backend(str(values.get("backend", ""))).Config)


def get_backend(name: str) -> Backend:
    """Import a backend by name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in backend_names():
        raise ConfigError(f"no backend is called {name!r}; {nearest(name, backend_names())}")
    return cast(Backend, importlib.import_module(f"{__name__}.{name}"))
