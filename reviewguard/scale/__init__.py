"""Distributed prediction and encoding on Ray Data: Parquet of any size, Ray datasets, and embeddings of frozen encoders.

Ray provides the cluster, the actors and their recovery. This package distributes a bundle to each node once, adds predictions to
tables, and computes each part once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from reviewguard.errors import requires

if TYPE_CHECKING:
    from reviewguard.scale.features import Cached, cache_features
    from reviewguard.scale.predict import predict_dataset, predict_parquet

# Loaded lazily, as in reviewguard itself: an actor that predicts must not import torch, which encoding needs.
_HOME: Final = {"Cached": "features", "cache_features": "features", "predict_dataset": "predict", "predict_parquet": "predict"}

__all__ = ["Cached", "cache_features", "predict_dataset", "predict_parquet"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with requires("scale"):
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
