"""A small Ray cluster and an exported model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewguard import Classifier
from reviewguard.data.reviews import read

# Disables Ray's usage statistics, which are sent to its developers by default.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Two cores of this machine."""
    import ray

    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    ray.init(num_cpus=2, object_store_memory=200 * 2**20, **quiet)
    yield
    ray.shutdown()


@pytest.fixture(scope="package")
def exported(tiny_encoder: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an fp32 export of a tiny model."""
    settings = {"encoder__repo": str(tiny_encoder), "encoder__revision": "", "encoder__weights_sha256": "", "encoder__dense": ""}
    classifier = Classifier("minilm-logreg", **settings, encoder__max_length=32)
    reviews = read(sample)
    classifier.fit(reviews.texts, reviews.labels)
    folder = tmp_path_factory.mktemp("model") / "exported"
    classifier.export(folder)
    return folder
