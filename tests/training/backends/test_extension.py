"""A new backend is one file: it trains, saves, exports and predicts like the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reviewguard import Classifier
from reviewguard.training import backends

CENTROIDS = """
import numpy as np

from reviewguard.config import EncoderRecipe
from reviewguard.models.heads import LinearHead
from reviewguard.training.backends._embed import load, logits, tensor, train_head


class Config(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scale: float = 10.0


def train(train, validation, *, classes, encoder, config, run):
    def fit(rows, _):
        centroids = np.stack([rows.x[rows.y == index].mean(axis=0) for index in range(len(classes))])
        return LinearHead(tensor(config.scale * centroids), tensor(-config.scale * (centroids**2).sum(axis=1) / 2))

    return train_head(fit, train, validation, encoder, run)
"""


def test_a_backend_is_one_file(tmp_path: Path, tiny_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "centroids.py").write_text(CENTROIDS)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(folder)])
    assert "centroids" in backends.backend_names()
    texts = [f"{text} {number}" for number in range(6) for text in ("a kettle", "books and books")]
    labels = ["b", "a"] * 6
    model = Classifier({"backend": "centroids", "encoder": {"repo": ""}}, **tiny_settings, scale=5.0).fit(texts, labels)
    assert model.predict(texts).tolist() == labels
    model.save(tmp_path / "saved")
    model.export(tmp_path / "export")
    for place in ("saved", "export"):
        loaded = Classifier.from_pretrained(tmp_path / place)
        np.testing.assert_allclose(loaded.predict_proba(texts), model.predict_proba(texts), atol=1e-4)
