"""Conversion of GGUF files, the format of llama.cpp, to the Hugging Face layout that encoders are loaded from."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

from transformers import AutoModel, AutoTokenizer

from reviewguard import files
from reviewguard.errors import EncoderError, requires

SUFFIX: Final = ".gguf"
#: File in a converted folder with the SHA-256 of its weights.
_RECORD: Final = "model.sha256"


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names: the file itself, or the only one in a folder without safetensors weights.

    Raises:
        EncoderError: If the folder has several.
    """
    if path.suffix == SUFFIX and path.is_file():
        return path
    candidates = sorted(path.glob(f"*{SUFFIX}")) if not any(path.glob("model*.safetensors")) else []
    if len(candidates) > 1:
        raise EncoderError(
            f"{path} has {len(candidates)} GGUF files ({', '.join(file.name for file in candidates[:3])}, ...); set encoder.repo "
            "to one of them"
        )
    return candidates[0] if candidates else None


def converted(source: Path) -> tuple[Path, str]:
    """Convert a GGUF file to config.json, tokenizer and safetensors in float32, in the user's cache.

    Quantised weights are dequantised by transformers, which supports the architectures and types that its documentation lists.

    Args:
        source: GGUF file.

    Returns:
        The folder of the converted files, and the SHA-256 of the GGUF file.

    Raises:
        EncoderError: If the file cannot be converted, or the cache is not writable.
        MissingExtra: If the package gguf is not installed.
    """
    digest = files.sha256(source)
    folder = _folder(digest)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.exclusive(folder):
            if not _is_intact(folder):
                with requires("gguf"):
                    import gguf  # noqa: F401 - transformers imports it later, and reports its absence less clearly
                _convert(source, folder)
    except OSError as error:
        raise EncoderError(
            f"{source} cannot be converted in {folder.parent} ({error.strerror or error}); set REVIEWGUARD_CACHE to a writable "
            "folder"
        ) from error
    return folder, digest


def weights_of(folder: Path, sha256: str) -> str | None:
    """SHA-256 of the safetensors weights in a folder, if it is where a GGUF file of this SHA-256 was converted to; else None."""
    return (folder / _RECORD).read_text() if folder == _folder(sha256) else None


def _folder(sha256: str) -> Path:
    return files.cache_folder() / "gguf" / f"{sha256[:32]}-{version('transformers')}"


def _is_intact(folder: Path) -> bool:
    record, weights = folder / _RECORD, folder / "model.safetensors"
    return record.is_file() and weights.is_file() and record.read_text() == files.sha256(weights)


def _convert(source: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "converted"
        try:
            model = AutoModel.from_pretrained(source.parent, gguf_file=source.name, dtype="float32", trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
            # Otherwise the model is saved as a quantised one.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(built, max_shard_size="1TB")
            tokenizer.save_pretrained(built)
        except Exception as error:  # malformed files make transformers and gguf raise errors without a common base class
            raise EncoderError(f"cannot convert {source}: {type(error).__name__}: {error}") from error
        (built / _RECORD).write_text(files.sha256(built / "model.safetensors"))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(built, folder)
