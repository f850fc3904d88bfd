"""The stress test of a small model whose answers are known: a word decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call

from reviewguard import Classifier
from reviewguard.data.perturb import ATTACKS, perturbed
from reviewguard.errors import ConfigError, DataError

ATTACKED = ["lower case", "homoglyphs 100 %", "first 10 words"]


@pytest.fixture(scope="module")
def model(tiny_settings: dict[str, object]) -> Classifier:
    texts = ["good kettle, fine", "bad pan", "a fine book", "an old dog"] * 5
    return Classifier("minilm-logreg", **tiny_settings).fit(texts, ["real", "fake", "real", "fake"] * 5)


def rows(sample: Path) -> dict[str, list[str]]:
    import csv

    with sample.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))[:60]
    return {name: [row[name] for row in read] for name in ("text", "label")}


def test_rates_are_those_of_the_changed_texts(model: Classifier, sample: Path) -> None:
    data = rows(sample)
    report = model.stress(data, attacks=ATTACKED, seed=3)
    assert [one.attack for one in report.results] == ["clean", *ATTACKED]
    fake = np.array(data["label"]) == "fake"
    clean_rate = None
    for one in report.results:
        texts = data["text"] if one.attack == "clean" else [perturbed(text, one.attack, 3) for text in data["text"]]
        assert one.changed == sum(a != b for a, b in zip(data["text"], texts, strict=True))
        called = model.predict(texts) == "fake"
        assert one.recall.value == pytest.approx(called[fake].mean())
        assert one.false_positive_rate.value == pytest.approx(called[~fake].mean())
        odds = np.diff(np.log(model.predict_proba(texts)[:, ::-1]), axis=1)[:, 0]
        clean_rate = called[~fake].mean() if clean_rate is None else clean_rate
        limit = np.sort(odds[~fake])[::-1][min(round(clean_rate * (~fake).sum()), (~fake).sum() - 1)]
        assert one.recall_at_clean_rate.value == pytest.approx((odds[fake] > limit).mean(), abs=1 / fake.sum())
        assert one.lost == pytest.approx(100 * (report.results[0].recall_at_clean_rate.value - one.recall_at_clean_rate.value))
    assert report.worst.attack != "first 10 words"
    assert "homoglyphs 100 %" in report.to_markdown()
    assert str(report) == report.to_text()


def test_what_cannot_be(model: Classifier, sample: Path, tiny_settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"no attack is called 'lower'; .*lower case"):
        model.stress(sample, attacks=["lower"])
    with pytest.raises(DataError, match="all 2 are one of the two"):
        model.stress((["a", "b"], ["real", "real"]))
    three = Classifier("minilm-logreg", **tiny_settings).fit(["good", "bad", "fine"], ["a", "b", "c"])
    with pytest.raises(ConfigError, match="3 classes"):
        three.stress((["good"], ["a"]))


def test_the_command_line_writes_a_page(
    model: Classifier, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "m")
    attacks = ["--attack", "lower case", "--attack", "no punctuation"]
    assert not call("stress", str(tmp_path / "m"), str(sample), "--out", str(tmp_path / "page"), *attacks)
    assert "recall at the clean rate" in capsys.readouterr().out
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "no punctuation" in page
    assert "data:image/svg+xml" in page
    assert (tmp_path / "page" / "report.json").exists()


def test_there_is_an_attack_for_each_name() -> None:
    assert len(ATTACKS) == 17
