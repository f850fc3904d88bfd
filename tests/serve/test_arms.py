"""A/B tests and shadow: who answers, and what is logged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi import ask
from fastapi import FastAPI

from reviewguard import Classifier
from reviewguard.errors import ConfigError
from reviewguard.inference.decision_log import Entry, read
from reviewguard.serve import app

TEXTS = [f"The kettle number {number} boils fast, and the lid stays shut while it pours." for number in range(400)]


def predict(api: FastAPI, **body: Any) -> dict[str, Any]:
    answer = ask(api, lambda client: client.post("/predict", json=body))
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_keys_are_assigned_once_and_by_the_split(models: tuple[Path, Path]) -> None:
    champion, challenger = models
    keys = [f"author {number}" for number in range(250)]
    api = app(champion, challenger=str(challenger), split=20)
    body = predict(api, texts=TEXTS[:250], keys=keys)
    arms = [one["arm"] for one in body["predictions"]]
    assert 25 <= arms.count("challenger") <= 75, "20 % of 250, within four standard deviations"
    again = predict(app(champion, challenger=str(challenger), split=20), texts=TEXTS[100:350], keys=keys)
    assert [one["arm"] for one in again["predictions"]] == arms, "after a restart and for other texts"
    renamed = predict(app(champion, challenger=str(challenger), split=20, experiment="second"), texts=TEXTS[:250], keys=keys)
    assert [one["arm"] for one in renamed["predictions"]] != arms
    larger = predict(app(champion, challenger=str(challenger), split=60), texts=TEXTS[:250], keys=keys)
    moved = zip(arms, (one["arm"] for one in larger["predictions"]), strict=True)
    assert ("challenger", "champion") not in set(moved), "a larger split moves nobody back"
    same = predict(api, texts=TEXTS[:5], keys=["one author"] * 5)
    assert len({one["arm"] for one in same["predictions"]}) == 1
    single = predict(api, text=TEXTS[0], key="one author")
    assert single["predictions"][0]["arm"] == same["predictions"][0]["arm"]


def test_each_arm_answers_with_its_model(models: tuple[Path, Path]) -> None:
    body = predict(app(models[0], challenger=str(models[1])), texts=TEXTS[:250])
    assert body["model"]["sha256"] != body["challenger"]["sha256"]
    expected = dict(zip(("champion", "challenger"), (Classifier.from_pretrained(path) for path in models), strict=True))
    for arm, reference in expected.items():
        rows = [row for row, one in enumerate(body["predictions"]) if one["arm"] == arm]
        assert len(rows) > 80
        got = [body["predictions"][row]["scores"]["fake"] for row in rows]
        np.testing.assert_allclose(got, reference.predict_proba([TEXTS[row] for row in rows])[:, 0], atol=1e-5)


@pytest.mark.parametrize("with_texts", [False, True])
def test_the_log(models: tuple[Path, Path], tmp_path: Path, with_texts: bool) -> None:
    api = app(models[0], challenger=str(models[1]), log=str(tmp_path / "log"), log_texts=with_texts)
    body = predict(api, texts=[*TEXTS[:20], " "], keys=[f"author {number}" for number in range(21)])
    entries = read(tmp_path / "log")
    assert len(entries) == 21
    by_key = {entry.key: entry for entry in entries}
    for number, one in enumerate(body["predictions"]):
        entry = by_key[hashlib.sha256(f"author {number}".encode()).hexdigest()]
        assert (entry.arm, entry.label, entry.decision, entry.shadow) == (one["arm"], one["label"], one["decision"], False)
        assert entry.scores == pytest.approx(one["scores"])
        assert entry.model == body["model" if entry.arm == "champion" else "challenger"]["sha256"]
        assert entry.seconds > 0
        assert entry.text == ([*TEXTS[:20], " "][number] if with_texts else None)
    (file,) = (tmp_path / "log").iterdir()
    assert (b"kettle" in file.read_bytes()) == with_texts
    assert b"author" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0, "only the owner reads it"
    with file.open("ab") as log:
        log.write(b'{"time": 1, "key')  # as after a power failure
    assert read(tmp_path / "log") == entries


def test_in_the_shadow_only_the_champion_answers(models: tuple[Path, Path], tmp_path: Path) -> None:
    api = app(models[0], challenger=str(models[1]), shadow=True, log=str(tmp_path))
    body = predict(api, texts=TEXTS[:30])
    assert {one["arm"] for one in body["predictions"]} == {"champion"}
    assert body["challenger"] is None
    entries: dict[tuple[str, str], Entry] = {(entry.arm, entry.key): entry for entry in read(tmp_path)}
    assert len(entries) == 60
    assert all(entry.shadow for entry in entries.values())
    references = dict(zip(("champion", "challenger"), (Classifier.from_pretrained(path) for path in models), strict=True))
    for arm, reference in references.items():
        got = [entries[arm, hashlib.sha256(text.encode()).hexdigest()].scores["fake"] for text in TEXTS[:30]]
        np.testing.assert_allclose(got, reference.predict_proba(TEXTS[:30])[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a", "keys": ["b"]},
        {"texts": ["a"], "key": "b"},
        {"texts": ["a", "b"], "keys": ["c"]},
        {"text": "a", "key": 3},
    ],
)
def test_keys_that_do_not_fit_are_rejected(models: tuple[Path, Path], body: dict[str, Any]) -> None:
    answer = ask(app(models[0]), lambda client: client.post("/predict", json=body))
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid")


def test_invalid_tests_are_rejected(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set challenger too"):
        app(models[0], shadow=True)
    with pytest.raises(ConfigError, match=r"settings has an invalid value.*split"):
        app(models[0], challenger=str(models[1]), split=100)
    labels = ["x", "y", "z"] * 10
    Classifier("tfidf").fit([f"{label} kettle {row}" for row, label in enumerate(labels)], labels).export(tmp_path / "three")
    with pytest.raises(ConfigError, match="champion and challenger have different classes"):
        app(models[0], challenger=str(tmp_path / "three"))
