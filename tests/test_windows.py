"""Long texts in overlapping windows: every token is read, logits are combined as the rule says, and the model keeps it."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard import Classifier
from reviewguard.errors import BundleError, ConfigError, DataError
from reviewguard.windows import Windows

LONG = "the lid rattles but it boils fast and good . " * 30
MEAN = Windows(overlap=8, rule="mean")


@pytest.fixture(scope="module")
def model(tiny_settings: dict[str, object]) -> Classifier:
    texts = ["good kettle, fine", "bad pan", "a fine book", "an old dog"] * 5
    return Classifier("minilm-logreg", **tiny_settings).fit(texts, ["real", "fake", "real", "fake"] * 5)


@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from(["good", "kettle", "boils", "!", "xyzzy"]), max_size=150), overlap=st.integers(0, 16))
def test_windows_cover_every_token_once_but_for_the_overlap(model: Classifier, words: list[str], overlap: int) -> None:
    tokenizer, text = model._trained().tokenizer, " ".join(words)
    [whole] = tokenizer._plain.encode_batch_fast([text], add_special_tokens=False)
    [item] = tokenizer.encode([text], Windows(overlap=overlap, rule="mean", most=10**6))
    pieces = [ids[1:-1] for ids in (item.ids, *item.more)]
    assert [*pieces[0], *(token for piece in pieces[1:] for token in piece[overlap:])] == whole.ids
    assert all(before[len(before) - overlap :] == after[:overlap] for before, after in pairwise(pieces))
    assert not item.truncated
    [plain] = tokenizer.encode([text])
    assert (item.ids, item.fertility, item.words) == (plain.ids, plain.fertility, plain.words)
    [capped] = tokenizer.encode([text], Windows(overlap=overlap, rule="mean", most=2))
    assert len(capped.more) == min(len(item.more), 1)
    assert capped.truncated == (len(item.more) > 1)


@pytest.mark.parametrize("rule", ["mean", "max"])
def test_logits_are_combined_as_the_rule_says(model: Classifier, rule: str) -> None:
    fitted = model._trained()
    windowed = fitted.read_by(Windows(overlap=8, rule=rule))  # type: ignore[arg-type]
    texts = ["a kettle", LONG, "", LONG + " bad"]
    logits, encoded = windowed.logits(texts)
    for row, item in enumerate(encoded):
        windows = [np.array([ids]) for ids in (item.ids, *item.more)]
        own = np.concatenate([fitted.scorer.logits({"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in windows])
        odds = own[:, fitted.positive] - own[:, 1 - fitted.positive]
        expected = own.mean(axis=0) if rule == "mean" else own[odds.argmax()]
        np.testing.assert_allclose(logits[row], expected, atol=1e-5)
    np.testing.assert_allclose(logits[[0, 2]], fitted.logits([texts[0], texts[2]])[0], atol=1e-6)
    assert len(encoded[1].more) > 3


def rows(count: int) -> dict[str, list[str]]:
    """Long texts whose label is told by their second half."""
    texts = [f"{LONG} {word} number {row}" for row in range(count) for word in ("good kettle, fine", "bad pan")]
    return {"text": texts, "label": ["real", "fake"] * count}


def test_the_rule_is_chosen_on_held_out_rows_and_saved(model: Classifier, tmp_path: Path) -> None:
    chosen = copy.copy(model)
    found = chosen.set_windows(rows(25), overlap=8, most=20)
    assert set(found.scores) == {"first", "mean", "max"}
    assert found.rows == 50
    assert found.scores[found.windows.rule if found.windows else "first"] == max(found.scores.values())
    assert found.scores["first"] == 0.5  # all begin alike
    assert "held-out rows that are longer" in found.to_text()
    chosen.save(tmp_path / "m")
    loaded = Classifier.from_pretrained(tmp_path / "m")
    assert loaded.manifest.windows == found.windows
    np.testing.assert_allclose(loaded.predict_proba([LONG]), chosen.predict_proba([LONG]), atol=1e-6)
    read = copy.copy(model)
    read._fitted = model._trained().read_by(Windows(overlap=8, rule="mean", most=20))
    assert [next(one.stream([LONG])).truncated for one in (model, read)] == [True, False]


def test_the_order_is_held(model: Classifier, tmp_path: Path) -> None:
    decided = copy.copy(model)
    decided.calibrate(rows(25))
    with pytest.raises(ConfigError, match="call set_windows first"):
        decided.set_windows(rows(25))
    with pytest.raises(ConfigError, match="overlap is 100"):
        copy.copy(model).set_windows(rows(25), overlap=100)
    with pytest.raises(DataError, match="a choice needs 20 of each"):
        copy.copy(model).set_windows((["short", "text"], ["real", "fake"]))


def test_an_export_reads_in_windows_too(model: Classifier, tmp_path: Path) -> None:
    windowed = copy.copy(model)
    windowed._fitted = model._trained().read_by(MEAN)
    windowed.export(tmp_path / "onnx")
    loaded = Classifier.from_pretrained(tmp_path / "onnx")
    assert loaded.manifest.windows == MEAN
    np.testing.assert_allclose(loaded.predict_proba([LONG, "a kettle"]), windowed.predict_proba([LONG, "a kettle"]), atol=1e-4)


@pytest.mark.parametrize(
    "windows", [{"overlap": 30, "rule": "mean"}, {"overlap": 4, "rule": "sum"}, {"overlap": -1, "rule": "max"}]
)
def test_malformed_windows_are_refused(model: Classifier, tmp_path: Path, windows: dict[str, object]) -> None:
    model.save(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
    (tmp_path / "m" / "reviewguard.json").write_text(json.dumps({**manifest, "windows": windows}))
    with pytest.raises(BundleError, match="malformed"):
        Classifier.from_pretrained(tmp_path / "m")
