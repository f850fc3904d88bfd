"""The feature cache: correct, shared between processes, and intact after interrupted writes."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from reviewguard import files
from reviewguard.config import EncoderConfig
from reviewguard.models.encoder import LoadedEncoder, load_encoder
from reviewguard.models.text_model import run
from reviewguard.training.backends import _features
from reviewguard.training.backends._features import FeatureStore, features


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def loaded(tiny_encoder: Path) -> LoadedEncoder:
    return load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=32))


def shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


TEXTS = ["a pan", "the kettle is fine", "a pan", "", "a book about dogs that my dog ate"]


def test_cached_embeddings_match_the_encoder(cache: Path, loaded: LoadedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode([text])))[0] for text in TEXTS]
    first = features(loaded, TEXTS)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert len(shards(cache)) == 1
    monkeypatch.setattr(_features, "run", lambda *_: pytest.fail("the encoder ran although every text is cached"))
    np.testing.assert_array_equal(features(loaded, TEXTS[::-1]), first[::-1])


def test_only_new_texts_are_encoded(cache: Path, loaded: LoadedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    features(loaded, TEXTS)
    encoded: list[int] = []

    def counting(module, batch):
        encoded.append(len(batch["input_ids"]))
        return run(module, batch)

    monkeypatch.setattr(_features, "run", counting)
    monkeypatch.setattr(_features, "SHARD_ROWS", 2)
    features(loaded, [*TEXTS, "new one", "new two", "new three"])
    assert sum(encoded) == 3
    assert len(shards(cache)) == 3


def test_settings_that_change_embeddings_have_separate_caches(cache: Path, tiny_encoder: Path) -> None:
    for settings in ({}, {"normalize": True}, {"max_length": 9}):
        features(load_encoder(EncoderConfig(repo=str(tiny_encoder), **{"max_length": 32, **settings})), TEXTS)
    assert len({shard.parent for shard in shards(cache)}) == 3


def test_equal_weights_in_another_architecture_have_a_separate_cache(cache: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(tiny_encoder, changed)
    settings = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 1}))
    original, shallower = (load_encoder(EncoderConfig(repo=str(folder), max_length=32)) for folder in (tiny_encoder, changed))
    assert original.config.weights_sha256 == shallower.config.weights_sha256
    assert np.abs(features(original, TEXTS) - features(shallower, TEXTS)).max() > 1e-3


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "rename"])
def test_damaged_shard_is_replaced(cache: Path, loaded: LoadedEncoder, damage: str) -> None:
    first = features(loaded, TEXTS)
    (shard,) = shards(cache)
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        shard.write_bytes(content)
    elif damage == "rename":
        shard.rename(shard.with_name("0" * 64 + ".safetensors"))
    else:
        shard.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    np.testing.assert_array_equal(features(loaded, TEXTS), first)
    (replaced,) = shards(cache)
    assert hashlib.sha256(replaced.read_bytes()).hexdigest() == replaced.stem


def test_concurrent_writers(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        for block in range(20):
            keys = [hashlib.sha256(f"{block}-{row}".encode()).digest() for row in range(8)]
            FeatureStore(tmp_path, 4).add(keys, np.full((8, 4), block, dtype=np.float32))

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    keys = {hashlib.sha256(f"{block}-{row}".encode()).digest(): block for block in range(20) for row in range(8)}
    stored = dict(FeatureStore(tmp_path, 4).find(set(keys)))
    assert {key: vector.tolist() for key, vector in stored.items()} == {key: [float(b)] * 4 for key, b in keys.items()}
    assert not list(tmp_path.glob("*.tmp"))


def test_cache_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("REVIEWGUARD_CACHE")
    assert files.cache_folder().is_absolute()
    assert "reviewguard" in files.cache_folder().parts


def test_training_continues_without_a_writable_cache(
    loaded: LoadedEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"embeddings are not cached, because .*file is not writable .*set REVIEWGUARD_CACHE"):
        expected = features(loaded, TEXTS)
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path / "cache"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="No space left on device"):
        patch.setattr("reviewguard.files.replace", full)
        np.testing.assert_array_equal(features(loaded, TEXTS), expected)
