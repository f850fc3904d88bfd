"""Long texts in overlapping windows: every token is read, logits are combined by the rule, and the rule is saved."""

from __future__ import annotations

import copy
import json
import pickle
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import PLAIN

from reviewguard import Classifier
from reviewguard.bundle.decision import Decision
from reviewguard.bundle.windows import Windows
from reviewguard.data.tokens import Batch, Tokenizer
from reviewguard.errors import BundleError, ConfigError, DataError
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Floats

LONG = "the lid rattles but it boils fast and good . " * 30
MEAN = Windows(overlap=8, rule="mean")


@pytest.fixture(scope="module")
def model(tiny_settings: dict[str, object]) -> Classifier:
    texts = ["good kettle, fine", "bad pan", "a fine book", "an old dog"] * 5
    return Classifier("minilm-logreg", **tiny_settings).fit(texts, ["real", "fake", "real", "fake"] * 5)


@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from(["good", "[SEP]", "!", "xyzzy", "\u4f60"]), max_size=150), overlap=st.integers(0, 16))
def test_windows_cover_every_token_once_except_for_the_overlap(model: Classifier, words: list[str], overlap: int) -> None:
    tokenizer, text = model._trained().tokenizer, " ".join(words)
    [whole] = tokenizer._plain.encode_batch_fast([text], add_special_tokens=False)
    [item] = tokenizer.encode([text], overlap, 10**6)
    pieces = [ids[1:-1] for ids in (item.ids, *item.more)]
    assert [*pieces[0], *(token for piece in pieces[1:] for token in piece[overlap:])] == whole.ids
    assert all(before[len(before) - overlap :] == after[:overlap] for before, after in pairwise(pieces))
    assert not item.truncated
    [plain] = tokenizer.encode([text])
    assert (item.ids, item.fertility, item.words) == (plain.ids, plain.fertility, plain.words)
    assert all((ids[0], ids[-1]) == (plain.ids[0], plain.ids[-1]) for ids in item.more)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode([text], overlap, 10**6) == [item]
    [capped] = tokenizer.encode([text], overlap, 2)
    assert len(capped.more) == min(len(item.more), 1)
    assert capped.truncated == (len(item.more) > 1)


@pytest.mark.parametrize("ends", [[], ["[SEP]"], ["[CLS]", "[SEP]"]], ids=len)
def test_pieces_of_words_are_counted_once_for_any_special_tokens(tiny_encoder: Path, ends: list[str]) -> None:
    content = json.loads((tiny_encoder / "tokenizer.json").read_bytes())
    before, after = ([{"SpecialToken": {"id": name, "type_id": 0}} for name in part] for part in (ends[:-1], ends[-1:]))
    text = {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*before, text, *after],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [content["model"]["vocab"][name]], "tokens": [name]} for name in ends},
    }
    tokenizer = Tokenizer(json.dumps(content).encode(), b"{}", 16)
    assert tokenizer.room == 16 - len(ends)
    words = "\u4f60 xyzzy " * 20  # every second word is unknown
    [plain] = tokenizer.encode([words])
    for overlap in range(9):
        assert tokenizer.encode([words], overlap, 8)[0].fertility == plain.fertility


class Shapes:
    """A scorer that records the shapes of its batches."""

    name, token_budget, workers = "shapes", 64, 2

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        self.seen.append(batch["input_ids"].shape)
        return np.zeros((len(batch["input_ids"]), 2), np.float32)


@pytest.mark.parametrize("texts", [[LONG], ["bad", LONG, "", LONG]])
def test_windows_of_a_text_are_batched_within_the_budget(model: Classifier, texts: list[str]) -> None:
    scorer = Shapes()
    manifest = msgspec.structs.replace(PLAIN, windows=MEAN)
    logits, encoded = TrainedModel(manifest, model._trained().tokenizer, scorer, {}).logits(texts)
    assert logits.shape == (len(texts), 2)
    assert max(len(item.more) for item in encoded) == MEAN.max_windows - 1
    assert sum(count for count, _ in scorer.seen) == sum(1 + len(item.more) for item in encoded)
    assert max(count * length for count, length in scorer.seen) == Shapes.token_budget


@pytest.mark.parametrize("rule", ["mean", "max"])
def test_logits_of_a_single_window_are_unchanged(model: Classifier, rule: str) -> None:
    texts, fitted = ["a kettle", "", "bad pan " * 9, "an old dog"] * 40, model._trained()
    read = fitted.with_windows(Windows(overlap=8, rule=rule))  # type: ignore[arg-type]
    np.testing.assert_array_equal(read.logits(texts)[0], fitted.logits(texts)[0])
    assert read.predictions(texts) == fitted.predictions(texts)


@pytest.mark.parametrize("rule", ["mean", "max"])
def test_logits_are_combined_by_the_rule(model: Classifier, rule: str) -> None:
    fitted = model._trained()
    windowed = fitted.with_windows(Windows(overlap=8, rule=rule))  # type: ignore[arg-type]
    texts = ["a kettle", LONG, "", LONG + " bad"]
    logits, encoded = windowed.logits(texts)
    for row, item in enumerate(encoded):
        windows = [np.array([ids]) for ids in (item.ids, *item.more)]
        each = np.concatenate([fitted.scorer.logits({"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in windows])
        odds = each[:, fitted.positive] - each[:, 1 - fitted.positive]
        tokens = [ids.shape[1] for ids in windows]
        expected = np.average(each, axis=0, weights=tokens) if rule == "mean" else each[odds.argmax()]
        np.testing.assert_allclose(logits[row], expected, atol=1e-5)
    np.testing.assert_allclose(logits[[0, 2]], fitted.logits([texts[0], texts[2]])[0], atol=1e-6)
    assert len(encoded[1].more) > 3


def rows(count: int) -> dict[str, list[str]]:
    """Long texts whose label depends on their second half."""
    texts = [f"{LONG} {word} number {row}" for row in range(count) for word in ("good kettle, fine", "bad pan")]
    return {"text": texts, "label": ["real", "fake"] * count}


def test_the_rule_is_chosen_on_held_out_rows_and_saved(model: Classifier, tmp_path: Path) -> None:
    chosen = copy.copy(model)
    result = chosen.set_windows(rows(25), overlap=8, max_windows=20)
    assert set(result.scores) == {"first", "mean", "max"}
    assert result.rows == 50
    assert result.scores[result.windows.rule if result.windows else "first"] == max(result.scores.values())
    assert result.scores["first"] == 0.5  # all texts begin identically
    assert "held-out rows that are longer" in result.to_text()
    chosen.save(tmp_path / "m")
    loaded = Classifier.from_pretrained(tmp_path / "m")
    assert loaded.manifest.windows == result.windows
    np.testing.assert_allclose(loaded.predict_proba([LONG]), chosen.predict_proba([LONG]), atol=1e-6)
    read = copy.copy(model)
    read._model = model._trained().with_windows(Windows(overlap=8, rule="mean", max_windows=50))
    assert [next(entry.stream([LONG])).truncated for entry in (model, read)] == [True, False]


def test_outdated_decisions_are_removed_and_invalid_settings_are_refused(model: Classifier, tmp_path: Path) -> None:
    decided, data = copy.copy(model), rows(25)
    decided.calibrate(data)
    with pytest.warns(UserWarning, match="set them again"):
        result = decided.set_windows(data, overlap=8, max_windows=50)
    assert result.windows is not None
    assert decided.manifest.decision == Decision()
    with pytest.raises(DataError, match="not read in windows"):
        decided.calibrate()
    with pytest.raises(ConfigError, match="overlap is 100"):
        copy.copy(model).set_windows(rows(25), overlap=100)
    for most in (-1, 1):
        with pytest.raises(ConfigError, match=f"max_windows is {most}"):
            copy.copy(model).set_windows(rows(25), max_windows=most)
    with pytest.raises(DataError, match="at least 20 of each class are needed"):
        copy.copy(model).set_windows((["short", "text"], ["real", "fake"]))


def test_an_export_reads_in_windows_too(model: Classifier, tmp_path: Path) -> None:
    windowed = copy.copy(model)
    windowed._model = model._trained().with_windows(MEAN)
    texts = [LONG, "a kettle", f"{LONG} bad pan" * 2]
    windowed.export(tmp_path / "onnx", (texts, ["real", "real", "fake"]))  # labels as predicted by the model
    for engine in ("onnxruntime", "openvino"):
        loaded = Classifier.from_pretrained(tmp_path / "onnx", runtime=engine)  # type: ignore[arg-type]
        assert loaded.manifest.windows == MEAN
        np.testing.assert_allclose(loaded.predict_proba(texts), windowed.predict_proba(texts), atol=1e-4)
        assert [entry.truncated for entry in loaded.stream(texts)] == [entry.truncated for entry in windowed.stream(texts)]


@pytest.mark.parametrize(
    "windows", [{"overlap": 30, "rule": "mean"}, {"overlap": 4, "rule": "sum"}, {"overlap": -1, "rule": "max"}]
)
def test_malformed_windows_are_refused(model: Classifier, tmp_path: Path, windows: dict[str, object]) -> None:
    model.save(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
    (tmp_path / "m" / "reviewguard.json").write_text(json.dumps({**manifest, "windows": windows}))
    with pytest.raises(BundleError, match="malformed"):
        Classifier.from_pretrained(tmp_path / "m")


def test_an_overlap_that_fills_the_window_is_refused(model: Classifier, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "reviewguard.json").read_text())
    changed = {**manifest, "max_length": 4, "windows": {"overlap": 2, "rule": "mean"}}
    (tmp_path / "m" / "reviewguard.json").write_text(json.dumps(changed))
    with pytest.raises(BundleError, match="windows overlap by 2 tokens, but hold only 2 tokens of text"):
        Classifier.from_pretrained(tmp_path / "m")
