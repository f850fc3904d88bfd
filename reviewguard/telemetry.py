"""Switches that keep libraries from sending data about their use, set before they are imported."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The documented switch of each library, and its value.
SWITCHES: Final = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime's Privacy.md
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: versions of packages, with each request
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def switch_off() -> None:
    """Set the switches that the user has not set, in this process and those that it starts."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def openvino_without() -> Iterator[None]:
    """Import OpenVINO in this block as if its package `openvino_telemetry` were not installed, which it can do without.

    It has no switch but a file in the user's home folder, `intel/openvino_telemetry`. Where there is one, the user has chosen,
    and the choice holds.
    """
    name = "openvino_telemetry"
    if name in sys.modules or _has_chosen(name):
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails then
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _has_chosen(name: str) -> bool:
    try:
        home = Path.home()
    except RuntimeError:
        return False
    return any((home / folder / name).exists() for folder in ("intel", "Intel Corporation"))
