"""Files of an experiment: results and logits of finished runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec
import safetensors.numpy

from reviewguard.errors import ConfigError, DataError
from reviewguard.experiments.jobs import Result
from reviewguard.inference.scoring import Floats

RESULTS: Final = "results.jsonl"


def folder_at(out: str | os.PathLike[str]) -> Path:
    """The folder of an experiment; it need not exist.

    Raises:
        ConfigError: If the path is not a folder.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; an experiment needs a folder, so name another path with --out")
    return folder


def read_results(folder: Path) -> list[Result]:
    """Read `results.jsonl`; empty if the file does not exist.

    Raises:
        DataError: If the file is malformed.
    """
    path = folder / RESULTS
    try:
        return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()] if path.exists() else []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is malformed: {error}; move it away to start over") from error


def logits_of(result: Result, folder: Path) -> dict[str, Floats]:
    """Read the logits of a finished run, float32 (rows, classes), by the name of the rows.

    Raises:
        DataError: If the file is missing or malformed.
    """
    path = scores_file(folder, result.key)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != result.logits_sha256:
            raise ValueError("its SHA-256 differs from the recorded one")
        return safetensors.numpy.load(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder / RESULTS} to run everything again") from error


def scores_file(folder: Path, key: str) -> Path:
    """Path of the logits of a run."""
    return folder / "scores" / f"{key}.safetensors"
