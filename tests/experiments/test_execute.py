"""One run, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured import assert_measured
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from reviewguard import Classifier
from reviewguard.config import DataConfig
from reviewguard.data.clean import clean
from reviewguard.data.reviews import Reviews, class_indices, read
from reviewguard.experiments.candidates import make_jobs, recipe_of
from reviewguard.experiments.execute import execute
from reviewguard.experiments.jobs import Task
from reviewguard.experiments.results import logits_of, scores_file
from reviewguard.experiments.rows import Source, divide_source


@pytest.fixture(scope="module")
def source(sample: Path) -> Source:
    return divide_source(read(sample), DataConfig(), "sample")


def _task(source: Source, name: str, **settings: object) -> Task:
    (job,) = make_jobs({name: recipe_of(name, settings)}, [1], 0.1, source.name)
    scored = {"one": source.scored, "other": source.scored.take(range(40))}
    return Task(job=job, train=source.train, validation=source.validation, scored=scored)


@pytest.mark.parametrize("name", ["tfidf", "minilm-logreg", "minilm-finetune"])
def test_a_run(name: str, source: Source, tiny_settings: dict[str, object], tmp_path: Path) -> None:
    settings = {"data.min_tokens": 70} if name == "tfidf" else {**tiny_settings, "data.min_tokens": 40}
    if name == "minilm-finetune":
        settings |= {"loop__epochs": 1}
    task = _task(source, name, **settings)
    result = execute(task, "key", tmp_path)
    assert (result.key, result.outcome, result.error, result.job) == ("key", "done", "", task.job)
    assert (result.classes, result.positive) == (["fake", "real"], "fake")
    assert_measured(result, task.scored, tmp_path)
    assert result.scores["one"] != result.scores["other"]
    assert [note for note in result.notes if "only known to be" in note], "warnings of the run are part of the result"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [scores_file(tmp_path, "key")], "checkpoints are removed"
    cost = result.cost
    assert min(cost.seconds, cost.model_mib, cost.reviews_per_second, cost.peak_memory_mib) > 0
    assert 0 < result.rows == result.cleaning.rows_out < len(source.train) == result.cleaning.rows_in
    if name == "tfidf":
        assert result.scores["one"].metrics["accuracy"].value > 0.7
    assert (result.history is not None) == (name == "minilm-finetune")


@pytest.mark.parametrize("name", ["tfidf", "minilm-logreg"])
def test_a_run_gives_the_model_of_a_classifier(
    name: str, source: Source, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "encoder__prune_vocabulary": True} if name == "minilm-logreg" else {}
    task = _task(source, name, **settings)
    result = execute(task, "key", tmp_path)
    cleaned, _ = clean(task.train, DataConfig(), lambda texts: np.full(len(texts), 99))
    assert result.rows == len(cleaned)
    classifier = Classifier(name, **settings).fit(cleaned.texts, cleaned.labels)
    texts = task.scored["one"].texts
    expected = classifier.predict_proba(texts)
    logits = logits_of(result, tmp_path)["one"]
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=1e-4)
    truncated = sum(prediction.truncated for prediction in classifier.stream(texts))
    assert result.truncated["one"] == truncated
    assert (truncated > 0) == (name == "minilm-logreg"), "the tiny encoder reads 32 tokens"


def test_scored_rows_do_not_affect_training(source: Source, tmp_path: Path) -> None:
    """Other scored rows give the same model and the same threshold."""
    task = _task(source, "tfidf")
    turned = replace(source.scored, labels=[{"fake": "real", "real": "fake"}[label] for label in source.scored.labels])
    results = [execute(one, key, tmp_path) for key, one in (("a", task), ("b", replace(task, scored={"one": turned})))]
    one, other = (logits_of(result, tmp_path)["one"] for result in results)
    np.testing.assert_array_equal(one, other)
    straight, mirrored = (result.at_point["one"].confusion for result in results)
    assert straight == mirrored[::-1]


def test_three_classes(source: Source, tmp_path: Path) -> None:
    def third(part: Reviews) -> Reviews:
        return replace(part, labels=[label if row % 3 else "unsure" for row, label in enumerate(part.labels)])

    task = _task(source, "tfidf")
    task = replace(task, train=third(task.train), validation=third(task.validation), scored={"one": third(source.scored)})
    result = execute(task, "key", tmp_path)
    assert (result.classes, result.positive, result.at_point) == (["fake", "real", "unsure"], None, {})
    logits = logits_of(result, tmp_path)["one"]
    y = class_indices(task.scored["one"].require_complete()[1], result.classes)
    assert result.scores["one"].metrics["accuracy"].value == pytest.approx(accuracy_score(y, logits.argmax(axis=1)))


def test_training_rows_without_text_or_label_are_dropped(
    source: Source, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    texts, labels = list(source.train.texts), list(source.train.labels)
    texts[0], labels[1] = None, None
    task = replace(_task(source, "minilm-logreg", **tiny_settings), train=replace(source.train, texts=texts, labels=labels))
    assert execute(task, "key", tmp_path).rows <= len(texts) - 2
