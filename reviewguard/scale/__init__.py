"""Past one machine, on Ray Data: Parquet of any size, a Ray dataset, and the features of frozen encoders.

Ray brings the cluster, the actors and what happens when one of them dies. What is here is the seam: a bundle that travels to
every node once, a table that gains its predictions, and parts that are computed once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from reviewguard.errors import requires

if TYPE_CHECKING:
    from reviewguard.scale.features import Cached, cache_features
    from reviewguard.scale.predict import predict_dataset, predict_parquet

# As in reviewguard itself: an actor that predicts must not load the torch of one that encodes.
_HOME: Final = {"Cached": "features", "cache_features": "features", "predict_dataset": "predict", "predict_parquet": "predict"}

__all__ = ["Cached", "cache_features", "predict_dataset", "predict_parquet"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with requires("scale"):
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
