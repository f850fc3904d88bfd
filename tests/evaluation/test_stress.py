"""Stress tests of a small model whose predictions depend on a single word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import call, captured
from pages import assert_whole

from reviewguard import Classifier
from reviewguard.data.perturb import ATTACKS, perturbed
from reviewguard.errors import ConfigError, DataError
from reviewguard.evaluation.stress import Stress, _measured
from reviewguard.experiments.stress import stress_page

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


def test_rates_are_computed_on_the_perturbed_texts(model: Classifier, sample: Path) -> None:
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
    assert report.worst is not None
    assert report.worst.attack in ATTACKED[:2]
    assert "homoglyphs 100 %" in report.to_markdown()
    assert str(report) == report.to_text()


def test_invalid_arguments_are_refused(model: Classifier, sample: Path, tiny_settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown attack 'lower'; .*lower case"):
        model.stress(sample, attacks=["lower"])
    with pytest.raises(DataError, match="all 2 are of one class"):
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
    assert_whole(tmp_path / "page")


def test_an_unusable_folder_is_detected_first(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = captured("stress", tmp_path / "no model", sample, "--out", tmp_path / "file", check=False)
    assert (done.returncode, "file is a file" in done.stderr) == (1, True)


def _result(attack: str, scores: list[float], clean: list[Stress]) -> Stress:
    """Two positives followed by five negatives; scores from 0 are positive."""
    odds = np.array([[-one, one] for one in scores])
    return _measured(attack, 0, odds, 1, np.arange(7) < 2, clean)


def test_recall_at_the_clean_rate() -> None:
    clean = _result("clean", [3, 1, 2, -1, -2, -3, -4], [])
    assert (clean.recall.value, clean.false_positive_rate.value, clean.recall_at_clean_rate.value, clean.lost) == (1, 0.2, 1, 0)
    attacked = _result("a", [0.5, 2.5, 4, 2, -2, -3, -4], [clean])
    assert (attacked.recall.value, attacked.false_positive_rate.value) == (1, 0.4)
    assert (attacked.recall_at_clean_rate.value, attacked.lost) == (0.5, 50), "above 2, so that one negative of five is wrong"


def test_a_model_that_flags_everything_has_full_recall() -> None:
    clean = _result("clean", [1, 2, 3, 4, 5, 6, 7], [])
    assert (clean.false_positive_rate.value, clean.recall_at_clean_rate.value) == (1, 1)


def test_truncation_alone_has_no_worst_attack(model: Classifier, sample: Path) -> None:
    report = model.stress(rows(sample), attacks=["first 10 words"])
    assert report.worst is None
    assert len(stress_page(report, "it").short) == 1


def test_every_attack_name_has_a_function() -> None:
    assert len(ATTACKS) == 17
