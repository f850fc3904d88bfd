"""The leakage audit and the negative control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reviewguard.config import DataConfig
from reviewguard.data.reviews import Reviews, read
from reviewguard.experiments.audit import CONTROL, Audit, audit, control, plain_class
from reviewguard.experiments.candidates import recipe_of
from reviewguard.experiments.execute import execute
from reviewguard.experiments.rows import Source, divide_source
from reviewguard.experiments.sections import negative_control

VOCABULARY = [f"word{number}" for number in range(3000)]
NEAR, SIBLINGS = slice(0, 20), slice(20, 50)  # of the scored rows, the first 100 of which are fake


def _texts(rng: np.random.Generator, n: int) -> list[str]:
    return [" ".join(row) for row in rng.choice(VOCABULARY, (n, 20))]


def _sibling(rng: np.random.Generator, text: str) -> str:
    """Two thirds of a text's words, reordered and mixed with new ones, like two outputs for one prompt."""
    words = [*rng.permutation(text.split())[:13], *rng.choice(VOCABULARY, 7)]
    return " ".join(rng.permutation(words))


@pytest.fixture(scope="module")
def planted() -> Source:
    """Unrelated texts, except for scored rows derived from training rows."""
    rng = np.random.default_rng(0)
    train, scored = _texts(rng, 600), _texts(rng, 300)
    scored[NEAR] = [f"{text.upper()}, {rng.choice(VOCABULARY)}!" for text in train[:20]]
    scored[SIBLINGS] = [_sibling(rng, text) for text in train[100:130]]
    labels = ["fake"] * 300 + ["real"] * 300
    parts = Reviews(texts=train, labels=labels), Reviews(texts=_texts(rng, 60), labels=labels[270:330])
    return Source(name="it", train=parts[0], validation=parts[1], scored=Reviews(texts=scored, labels=labels[200:500]))


@pytest.fixture(scope="module")
def found(planted: Source) -> Audit:
    return audit(planted, DataConfig())


def test_near_duplicates_are_found(found: Audit) -> None:
    assert found.near[NEAR].all()
    assert not found.near[20:].any()


def test_siblings_are_found(found: Audit) -> None:
    assert found.sibling[SIBLINGS].mean() > 0.9
    assert not found.sibling[NEAR].any(), "a row is either a near-duplicate or a sibling"


def test_unrelated_rows_are_not_flagged(found: Audit, planted: Source) -> None:
    assert found.plain == "real"
    assert found.sibling[50:].mean() < 0.05
    assert 0 < found.sibling[np.array(planted.scored.labels) == "real"].mean() < 0.05, "one in a hundred by definition"
    assert 0.05 < found.similarity < 0.5


def test_the_threshold_of_near_duplicates_comes_from_the_data_settings(planted: Source) -> None:
    assert audit(planted, DataConfig(near_duplicates=0)).near.sum() == 20, "the audit works even if the filter is off"
    assert audit(planted, DataConfig(near_duplicates=1.0)).near.sum() == 0


def test_blocks_give_the_same_result_and_large_training_sets_are_sampled(
    found: Audit, planted: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewguard.experiments.audit._BLOCK", 7)
    again = audit(planted, DataConfig())
    assert (again.near == found.near).all()
    assert (again.sibling == found.sibling).all()
    monkeypatch.setattr("reviewguard.experiments.audit._LOOKED_AT", 300)
    fewer = audit(planted, DataConfig())
    assert (fewer.near == found.near).all()
    assert 5 < fewer.sibling[SIBLINGS].sum() < 25, "half of the originals are not sampled"


def test_without_scored_plain_rows_there_are_no_siblings(planted: Source) -> None:
    only_fakes = replace(planted, scored=planted.scored.take(range(100)))
    found = audit(only_fakes, DataConfig())
    assert found.near.sum() == 20
    assert not found.sibling.any(), "there is no reference for siblings"


def test_the_plain_class_is_the_most_frequent_negative_class() -> None:
    labels = ["fake"] * 9 + ["real"] * 2 + [None] * 20
    assert plain_class(Reviews(texts=["x"] * 31, labels=labels)) == "real"
    assert plain_class(Reviews(texts=["x"] * 31, labels=labels), "real") == "fake"
    assert plain_class(Reviews(texts=["x"] * 6, labels=["a", "b", "b", "c", "c", "c"])) == "c"


def test_the_control_has_one_class_with_random_labels(planted: Source) -> None:
    task = control(planted, DataConfig(normalization="none"), 0.07)
    for drawn, part in (
        (task.train, planted.train),
        (task.validation, planted.validation),
        (task.scored[CONTROL], planted.scored),
    ):
        assert drawn.texts == [text for text, label in zip(part.texts, part.labels, strict=True) if label == "real"]
        assert sorted(set(drawn.labels)) == ["lot 0", "lot 1"]
        assert drawn.labels.count("lot 0") == pytest.approx(len(drawn) / 2, abs=1)
    assert task.job.recipe == recipe_of("tfidf", {"data.normalization": "none"})
    assert task.job.max_fpr == 0.07
    assert control(planted, DataConfig(normalization="none"), 0.07).key == task.key


def test_the_control_scores_at_chance_level(planted: Source, sample: Path, tmp_path: Path) -> None:
    for source in (planted, divide_source(read(sample), DataConfig(), "sample")):
        task = control(source, DataConfig(), 0.05)
        result = execute(task, task.key, tmp_path)
        auc = result.scores[CONTROL].metrics["roc_auc"]
        assert auc.low <= 0.5 <= auc.high
        assert "the interval includes the chance level of 0.5" in negative_control(result)


def test_the_control_detects_a_leak(planted: Source, tmp_path: Path) -> None:
    task = control(planted, DataConfig(), 0.05)

    def leaking(part: Reviews) -> Reviews:
        return replace(part, texts=[f"{text} {label}" for text, label in zip(part.texts, part.labels, strict=True)])

    scored = {CONTROL: leaking(task.scored[CONTROL])}
    leak = replace(task, train=leaking(task.train), validation=leaking(task.validation), scored=scored)
    assert leak.key != task.key
    result = execute(leak, leak.key, tmp_path)
    assert result.scores[CONTROL].metrics["roc_auc"].low > 0.8
    assert "look for a leak" in negative_control(result)


def test_a_control_of_too_few_rows_is_told_and_not_in_the_way(planted: Source, tmp_path: Path) -> None:
    """One scored row of the plain class has no AUC; a report that waited for days of runs must not fall over it."""
    few = replace(planted, scored=planted.scored.take(range(101)))
    task = control(few, DataConfig(), 0.05)
    result = execute(task, task.key, tmp_path)
    assert result.scores[CONTROL].metrics["roc_auc"].value is None
    assert "egative control" in negative_control(result)
