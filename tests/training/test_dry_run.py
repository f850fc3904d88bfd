"""A dry run reports what training does, and fails where training would fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import captured

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError, EncoderError

LOOP = {"loop__epochs": 2, "loop__batch_size": 32, "loop__micro_batch_size": 8}


def test_counts_match_training(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier("minilm-finetune", **tiny_settings, **LOOP)
    plan = classifier.dry_run(sample)
    assert plan.batches == (8, 1, 4)
    report = classifier.train(sample, run_dir=tmp_path)
    assert plan.rows == report.rows
    assert plan.cleaning == report.cleaning
    assert plan.classes == classifier.classes_.tolist()
    assert report.history is not None
    assert plan.steps == report.history.epochs[-1].step
    assert classifier.dry_run(sample, processes=2).batches == (8, 2, 2)


def test_heads_have_no_steps(tiny_settings: dict[str, object], sample: Path) -> None:
    plan = Classifier("minilm-logreg", **tiny_settings).dry_run(sample)
    assert (plan.steps, plan.batches) == (None, None)
    assert "steps" not in plan.to_text()


def test_errors_that_training_would_raise(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier("minilm-finetune", **tiny_settings, **LOOP)
    with pytest.raises(ConfigError, match=r"loop\.batch_size 32 is not a multiple of loop\.micro_batch_size 8 times 3 process"):
        classifier.dry_run(sample, processes=3)
    reviews = read(sample)
    with pytest.raises(DataError, match="not trained on"):
        classifier.dry_run(sample, (reviews.texts[:4], ["fake", "real", "spam", "real"]))
    with pytest.raises(DataError, match="kind"):
        Classifier("minilm-finetune", **tiny_settings, data__subclass="kind").dry_run(sample)
    with pytest.raises(EncoderError):
        Classifier("minilm-finetune", **{**tiny_settings, "encoder__repo": str(tmp_path)}).dry_run(sample)


def test_command_line(tiny_settings: dict[str, object], sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"--set={name.replace('__', '.')}={value}" for name, value in {**tiny_settings, **LOOP}.items()]
    done = captured("train", sample, "--preset", "minilm-finetune", "--out", "model", *settings, "--dry-run", "--processes", 4)
    assert "each of 8 rows x 4 process(es) x 1 micro-batches\ndry run: nothing was trained or written" in done.stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    refused = captured("train", sample, "--preset", "minilm-finetune", "--out", "model", "--dry-run", check=False)
    assert "it was not changed" in refused.stderr
