"""Replacing the model while requests are answered."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from asgi import ask
from fastapi import FastAPI

from reviewguard import Classifier
from reviewguard.errors import ConfigError
from reviewguard.serve import app

TEXT = "The kettle boils fast, and the lid stays shut while it pours."


def until(api: FastAPI, metric: str, change: Path, current: Path) -> list[tuple[str, float]]:
    """Ask without a pause while a link is turned to another folder, until a metric appears; the hash and score of each answer."""

    answers: list[tuple[str, float]] = []

    async def scenario(client: httpx.AsyncClient) -> None:
        async def once() -> None:
            got = await client.post("/predict", json={"text": TEXT})
            assert got.status_code == 200, got.text
            answers.append((got.json()["model"]["sha256"], got.json()["predictions"][0]["scores"]["fake"]))

        await once()
        (current.parent / "next").symlink_to(change)
        (current.parent / "next").replace(current)
        while metric not in (await client.get("/metrics")).text:
            await asyncio.gather(*(once() for _ in range(8)))
        await once()

    ask(api, scenario)
    return answers


def test_a_changed_folder_replaces_the_model_without_a_gap(models: tuple[Path, Path], tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(models[0])
    answers = until(app(current, watch_seconds=0.05), 'reviewguard_swaps_total{outcome="done"} 1.0', models[1], current)
    expected = [Classifier.from_pretrained(path).predict_proba([TEXT])[0, 0] for path in models]
    hashes = list(dict.fromkeys(sha256 for sha256, _ in answers))
    assert len(hashes) == 2
    for sha256, score in answers:
        np.testing.assert_allclose(score, expected[hashes.index(sha256)], atol=1e-5)


@pytest.mark.parametrize("fault", ["damaged", "other classes"])
def test_a_model_that_does_not_fit_leaves_the_old_one(models: tuple[Path, Path], tmp_path: Path, fault: str) -> None:
    current = tmp_path / "current"
    current.symlink_to(models[0])
    if fault == "damaged":
        shutil.copytree(models[1], tmp_path / "bad")
        (tmp_path / "bad" / "onnx" / "model.onnx").write_bytes(b"damaged")
    else:
        texts = [f"{label} kettle {row}" for row in range(10) for label in "xyz"]
        Classifier("tfidf").fit(texts, ["x", "y", "z"] * 10).export(tmp_path / "bad")
    api = app(current, watch_seconds=0.05)
    answers = until(api, 'reviewguard_swaps_total{outcome="failed"} 1.0', tmp_path / "bad", current)
    assert len({sha256 for sha256, _ in answers}) == 1
    np.testing.assert_allclose([score for _, score in answers], answers[0][1], atol=1e-5)


def test_only_a_folder_can_be_watched() -> None:
    with pytest.raises(ConfigError, match="watch_seconds needs a model in a local folder"):
        app(watch_seconds=1)
