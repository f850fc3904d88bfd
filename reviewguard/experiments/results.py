"""The folder of an experiment: results and logits of finished runs."""

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
    """The folder of an experiment; it need not be there.

    Raises:
        ConfigError: If there is something else in its place.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, and an experiment needs a folder; name another with --out")
    return folder


def read_results(folder: Path) -> list[Result]:
    """What `results.jsonl` holds; nothing where there is none.

    Raises:
        DataError: If it is malformed.
    """
    path = folder / RESULTS
    try:
        return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()] if path.exists() else []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is malformed: {error}; move it away to begin anew") from error


def logits_of(result: Result, folder: Path) -> dict[str, Floats]:
    """Logits of a finished run, float32 (rows, classes), by the name of the rows.

    Raises:
        DataError: If the file is not there, or malformed.
    """
    path = scores_file(folder, result.key)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != result.logits_sha256:
            raise ValueError("it is not what was written")
        return safetensors.numpy.load(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder / RESULTS} to run everything again") from error


def scores_file(folder: Path, key: str) -> Path:
    """Where the logits of a run are."""
    return folder / "scores" / f"{key}.safetensors"
