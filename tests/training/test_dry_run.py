"""A dry run describes what training does, and finds what training would fail on."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import captured

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError, EncoderError

LOOP = {"loop__epochs": 2, "loop__batch_size": 32, "loop__micro_batch_size": 8}


def test_it_counts_what_training_then_does(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier("minilm-finetune", **tiny_settings, **LOOP)
    found = classifier.dry_run(sample)
    assert found.batches == (8, 1, 4, found.steps // 2)
    report = classifier.train(sample, run_dir=tmp_path)
    assert found.rows == report.rows
    assert found.cleaning == report.cleaning
    assert found.classes == classifier.classes_.tolist()
    assert report.history is not None
    assert found.steps == report.history.epochs[-1].step
    assert classifier.dry_run(sample, processes=2).batches[:3] == (8, 2, 2)


def test_heads_have_no_steps(tiny_settings: dict[str, object], sample: Path) -> None:
    found = Classifier("minilm-logreg", **tiny_settings).dry_run(sample)
    assert (found.steps, found.batches) == (None, None)
    assert "steps" not in found.to_text()


def test_what_training_would_fail_on(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier("minilm-finetune", **tiny_settings, **LOOP)
    with pytest.raises(ConfigError, match=r"loop\.batch_size 32 is no multiple of loop\.micro_batch_size 8 times 3 process"):
        classifier.dry_run(sample, processes=3)
    reviews = read(sample)
    with pytest.raises(DataError, match="not trained on"):
        classifier.dry_run(sample, (reviews.texts[:4], ["fake", "real", "spam", "real"]))
    with pytest.raises(DataError, match="kind"):
        Classifier("minilm-finetune", **tiny_settings, data__subclass="kind").dry_run(sample)
    with pytest.raises(EncoderError):
        Classifier("minilm-finetune", **{**tiny_settings, "encoder__repo": str(tmp_path)}).dry_run(sample)


def test_by_the_command_line(
    tiny_settings: dict[str, object], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"--set={name.replace('__', '.')}={value}" for name, value in {**tiny_settings, **LOOP}.items()]
    done = captured("train", sample, "--preset", "minilm-finetune", "--out", "model", *settings, "--dry-run", "--processes", 4)
    assert "each of 8 rows x 4 process(es) x 1 micro-batches\ndry run: nothing was trained or written" in done.stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    refused = captured("train", sample, "--preset", "minilm-finetune", "--out", "model", "--dry-run", check=False)
    assert "it is left alone" in refused.stderr
