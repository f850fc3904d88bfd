"""Disable the telemetry of other libraries before they are imported."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The documented environment variable of each library, and the value that disables telemetry.
SWITCHES: Final = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime's Privacy.md
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: package versions sent with each request
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def switch_off() -> None:
    """Set the variables that the user has not set, for this process and its children."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def openvino_without() -> Iterator[None]:
    """Import OpenVINO in this block as if its optional package `openvino_telemetry` were not installed.

    Its only switch is a file in the user's home folder, `intel/openvino_telemetry`. If the file exists, the user has made a
    choice, and nothing is changed.
    """
    name = "openvino_telemetry"
    if name in sys.modules or _has_chosen(name):
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
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
