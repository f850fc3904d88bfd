"""Models that are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewguard import Classifier
from reviewguard.data.reviews import read


@pytest.fixture(scope="session")
def models(tiny_settings: dict[str, object], sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Exports of two models that differ."""
    folder, reviews = tmp_path_factory.mktemp("served"), read(sample)
    for name, c in (("a", 1), ("b", 0.01)):
        Classifier("minilm-logreg", **tiny_settings, C=c).fit(reviews.texts, reviews.labels).export(folder / name)
    return folder / "a", folder / "b"


@pytest.fixture(scope="session")
def exported(models: tuple[Path, Path]) -> Path:
    """An export."""
    return models[0]
