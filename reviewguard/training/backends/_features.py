"""Disk cache of the embeddings of frozen encoders, shared between heads, runs and processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard import files
from reviewguard.errors import DataError
from reviewguard.inference.scoring import Floats, compute
from reviewguard.models.device import best_device, token_budget
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.models.text_model import run

#: Number of texts encoded between two writes, and so the most that is lost on an interruption.
SHARD_ROWS: Final = 2048
_DAY_SECONDS: Final = 86_400


def features(loaded: LoadedEncoder, texts: Sequence[str]) -> Floats:
    """Encode texts. Embeddings in the cache are reused, and new ones are added to it.

    Args:
        loaded: The encoder. Cache keys depend on its weights, tokenizer, pooling and length, and on the hash of each text.
        texts: Normalised texts, n of them.

    Returns:
        float32 (n, width).

    Raises:
        DataError: If an embedding is not finite.
    """
    store = _store(loaded)
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    text_of = dict(zip(keys, texts, strict=True))
    vectors: dict[bytes, Floats] = dict(store.find(text_of.keys())) if store else {}
    missing = [key for key in text_of if key not in vectors]
    loaded.encoder.to(best_device())
    for start in range(0, len(missing), SHARD_ROWS):
        chunk = missing[start : start + SHARD_ROWS]
        encoded = loaded.tokenizer.encode([text_of[key] for key in chunk])
        title = f"encoding {start + len(chunk)} of {len(missing)}"
        new = compute(lambda b: run(loaded.encoder, b), loaded.tokenizer, encoded, token_budget(best_device()), title)
        if not np.isfinite(new).all():
            raise DataError(f"the encoder {loaded.config.repo} returned embeddings that are not finite; it cannot be used")
        try:
            if store:
                store.add(chunk, new)
        except OSError as error:
            _warn_of(error)
            store = None
        vectors |= zip(chunk, new, strict=True)
    return np.stack([vectors[key] for key in keys])


def _store(loaded: LoadedEncoder) -> FeatureStore | None:
    """Open the cache. None: it is not writable."""
    try:
        return FeatureStore(files.cache_folder() / "features" / _key(loaded), loaded.encoder.width)
    except OSError as error:
        _warn_of(error)
        return None


def _warn_of(error: OSError) -> None:
    """Warn that training continues without the cache."""
    warnings.warn(
        f"embeddings are not cached, because {files.cache_folder()} is not writable ({error.strerror}); set REVIEWGUARD_CACHE "
        "to a writable folder",
        stacklevel=2,
    )


def _key(loaded: LoadedEncoder) -> str:
    config = loaded.config
    recipe = {
        "layout": 1,
        "weights": config.weights_sha256,
        "architecture": _architecture(loaded),
        "tokenizer": hashlib.sha256(loaded.tokenizer.files()["tokenizer.json"]).hexdigest(),
        "pooling": config.pooling,
        "dense": config.dense,
        "normalize": config.normalize,
        "max_length": config.max_length,
        "dtype": "float32",
    }
    return hashlib.sha256(msgspec.json.encode(recipe)).hexdigest()[:32]


def _architecture(loaded: LoadedEncoder) -> str:
    return hashlib.sha256(json.dumps(loaded.encoder.settings, sort_keys=True, default=str).encode()).hexdigest()


class FeatureStore:
    """A folder of immutable shards, each named by the SHA-256 of its contents.

    A shard is written to a temporary file, synced and renamed, so an interrupted write leaves nothing that is read, and several
    processes can write at the same time. A shard whose hash differs from its name is removed.
    """

    def __init__(self, folder: Path, width: int) -> None:
        """Open the store, and create the folder if needed.

        Args:
            folder: Folder for one encoder.
            width: Dimension of its embeddings.
        """
        self._folder = folder
        self._width = width
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.glob("*.tmp"):
            with contextlib.suppress(OSError):  # another process may be removing it too
                if time.time() - stray.stat().st_mtime > _DAY_SECONDS:
                    stray.unlink()

    def find(self, wanted: Iterable[bytes]) -> Iterator[tuple[bytes, Floats]]:
        """Yield (key, embedding) once for each wanted key that is stored."""
        remaining = set(wanted)
        for shard in sorted(self._folder.glob("*.safetensors")):
            if not remaining:
                return
            # Embeddings are much larger than keys, and few shards of a large cache are needed: check the keys first.
            if remaining.isdisjoint(self._keys(shard)) or (tensors := self._read(shard)) is None:
                continue
            for key, vector in zip(map(bytes, tensors["keys"]), tensors["vectors"], strict=True):
                if key in remaining:
                    remaining.discard(key)
                    yield key, vector

    def add(self, keys: Sequence[bytes], vectors: Floats) -> None:
        """Store embeddings, float32 (n, width), under 32-byte keys. They are on disk when this returns."""
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
        content = safetensors.numpy.save({"keys": table, "vectors": np.ascontiguousarray(vectors)})
        files.replace(self._folder / f"{hashlib.sha256(content).hexdigest()}.safetensors", content)

    def _keys(self, shard: Path) -> set[bytes]:
        """Keys of a shard. A damaged shard has none and is removed."""
        try:
            with safetensors.safe_open(shard, framework="numpy") as file:
                return set(map(bytes, file.get_tensor("keys")))
        except (OSError, ValueError, safetensors.SafetensorError):
            self._read(shard)
            return set()

    def _read(self, shard: Path) -> dict[str, NDArray[np.generic]] | None:
        try:
            content = shard.read_bytes()
        except OSError:  # removed by another process, or temporarily unreadable: not damaged
            return None
        try:
            if hashlib.sha256(content).hexdigest() != shard.stem:
                raise ValueError("wrong hash")
            tensors: dict[str, NDArray[np.generic]] = safetensors.numpy.load(content)
            if tensors["vectors"].shape[1:] != (self._width,) or tensors["vectors"].dtype != np.float32:
                raise ValueError("wrong shape or type")
        except (ValueError, KeyError, safetensors.SafetensorError):
            with contextlib.suppress(OSError):
                shard.unlink()
            return None
        return tensors
