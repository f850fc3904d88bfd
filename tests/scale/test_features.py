"""Embeddings computed on Ray equal those of training, and training uses them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError
from reviewguard.scale import cache_features

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.usefixtures("cluster"),
]


def shards(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.safetensors")}


def test_training_uses_cached_embeddings(
    sample: Path, tiny_settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path / "cache"))
    reviews = read(sample)
    table = pa.table({"label": [*reviews.labels, None], "text": [*reviews.texts, None]})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    done = cache_features(tmp_path / "in.parquet", "minilm-logreg", part_rows=100, **tiny_settings)
    assert (done.rows, done.errors) == (321, 1)
    cached = shards(tmp_path / "cache")
    assert len(cached) == 4
    classifier = Classifier("minilm-logreg", **tiny_settings)
    classifier.train(sample)
    assert shards(tmp_path / "cache") == cached, "training encodes nothing"
    cache_features(tmp_path / "in.parquet", "minilm-logreg", **tiny_settings)
    assert shards(tmp_path / "cache") == cached, "cached texts are not encoded again"


def test_presets_that_train_their_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'minilm-finetune' trains its encoder"):
        cache_features(tmp_path / "in.parquet", "minilm-finetune")
