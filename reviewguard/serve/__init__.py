"""Serving over HTTP: an ASGI application for uvicorn or any other ASGI server.

uvicorn --factory reviewguard.serve:app
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from reviewguard.errors import requires

if TYPE_CHECKING:
    from reviewguard.serve.application import app, from_environment
    from reviewguard.serve.ray import deployment, from_arguments
    from reviewguard.serve.settings import Limits, Settings

_HOME: Final = {
    "app": "application",
    "from_environment": "application",
    "deployment": "ray",
    "from_arguments": "ray",
    "Limits": "settings",
    "Settings": "settings",
}

__all__ = ["Limits", "Settings", "app", "deployment", "from_arguments", "from_environment"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with requires("ray" if _HOME[name] == "ray" else "serve"):
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
