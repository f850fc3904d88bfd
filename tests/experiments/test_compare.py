"""Comparison on one identical split, from rows to a report."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from measured import assert_measured
from pages import assert_whole, tables

from reviewguard.config import DataConfig
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError
from reviewguard.experiments import Experiment, compare
from reviewguard.experiments.audit import CONTROL, control
from reviewguard.experiments.experiment import Evidence
from reviewguard.experiments.results import RESULTS, read_results
from reviewguard.experiments.rows import Source, divide_source
from reviewguard.experiments.significance import paired

pytestmark = pytest.mark.usefixtures("no_processes")

NAMES = ["minilm-logreg", "tfidf"]


@pytest.fixture(scope="module")
def source(sample: Path) -> Source:
    return divide_source(read(sample), DataConfig(), "sample_reviews")


@pytest.fixture(scope="module")
def done(
    no_processes: None, sample: Path, tiny_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    out = tmp_path_factory.mktemp("compare") / "new" / "folder"
    return compare(sample, NAMES[:1], out=out, seeds=(1, 2), max_fpr=0.1, settings=tiny_settings, command="made <by> a test")


def test_the_baseline_and_the_control_are_always_included(done: Experiment) -> None:
    assert [(one.job.name, one.job.recipe.get("seed"), one.outcome) for one in done.results] == [
        ("minilm-logreg", 1, "done"),
        ("minilm-logreg", 2, "done"),
        ("tfidf", 1, "done"),
        ("tfidf", 2, "done"),
        (CONTROL, 42, "done"),
    ]
    saved = read_results(done.folder)
    assert sorted(one.job.name for one in saved) == ["minilm-logreg", "minilm-logreg", CONTROL, "tfidf", "tfidf"]
    assert all(one.outcome == "done" for one in saved)


def test_results_match_the_logits(done: Experiment, source: Source) -> None:
    *results, negative_control = done.results
    for one in results:
        assert_measured(one, {"scored": source.scored}, done.folder)
        assert one.job.max_fpr == 0.1
        assert one.job.trained_on == "sample_reviews"
    assert_measured(negative_control, {CONTROL: control(source, DataConfig(), 0.1).scored[CONTROL]}, done.folder)


def test_evidence(done: Experiment, source: Source) -> None:
    failed = [msgspec.structs.replace(one, outcome="failed", job=done.results[2].job) for one in done.results]
    evidence = Evidence.of([*done.results[:-1], *failed], source.scored, "scored", done.folder)
    assert {name: len(own) for name, own in evidence.results.items()} == {"minilm-logreg": 2, "tfidf": 2}
    assert (evidence.classes, evidence.positive) == (["fake", "real"], "fake")
    for name, right in evidence.right().items():
        accuracies = [one.metrics["accuracy"].value for one in evidence.scores(name)]
        assert right.mean(axis=1).tolist() == pytest.approx(accuracies)


def test_the_report(done: Experiment, source: Source) -> None:
    html = assert_whole(done.folder)
    text = (done.folder / "report.md").read_text()
    accuracy = {name: 100 * np.mean(_values(done, name, "accuracy")) for name in NAMES}
    best = max(accuracy, key=accuracy.__getitem__)
    assert f"Most accurate: {best}, {accuracy[best]:.2f} % of {len(source.scored)} rows." in done.page.short[0]
    assert (
        f"Trained on {len(source.train)} rows, validated on {len(source.validation)} and scored on {len(source.scored)}" in text
    )
    assert any(sentence.startswith("Negative control: ") for sentence in done.page.short)
    titles = ["Scores", "Differences", "Accuracy and cost", "Curves", "Classes", "Leakage audit", "Warnings"]
    assert [section.title for section in done.page.sections] == titles
    assert "made <by> a test" in html.text

    scores, differences, costs, *_ = tables(text)
    head = scores[0]
    for row in scores[1:]:
        cells = dict(zip(head, row, strict=True))
        own = [one for one in done.results if one.job.name == cells["model"]]
        assert cells["seeds"] == str(len(own))
        of = {metric: 100 * np.mean(_values(done, cells["model"], metric)) for metric in ("f1", "accuracy", "roc_auc")}
        assert {metric: float(cells[metric].split()[0]) for metric in of} == pytest.approx(of, abs=0.006)
        there = 100 * np.mean([one.at_point["scored"].metrics["recall"].value for one in own])
        assert float(cells["recall at 10 %"].split()[0]) == pytest.approx(there, abs=0.006)
        assert bool(cells["accuracy SD over seeds"]) == (len(own) > 1)
    assert {row[0] for row in scores[1:]} == {row[0] for row in costs[1:]} == set(NAMES)

    order = differences[0][1:]
    evidence = Evidence.of(done.results[:-1], source.scored, "scored", done.folder)
    pairs = paired(evidence.right())
    for row in differences[1:]:
        for other, cell in zip(order, row[1:], strict=True):
            if other != row[0]:
                assert float(cell.rstrip("*")) == pytest.approx(accuracy[row[0]] - accuracy[other], abs=0.006)
                assert cell.endswith("*") == pairs[row[0], other].significant


def _values(done: Experiment, name: str, metric: str) -> list[float]:
    return [one.scores["scored"].metrics[metric].value for one in done.results if one.job.name == name]


def test_the_text_names_the_report(done: Experiment) -> None:
    assert str(done).splitlines() == [*done.page.short, f"report: {done.folder / 'report.html'}"]


def test_repeating_the_call_runs_nothing(done: Experiment, sample: Path, tiny_settings: dict[str, object]) -> None:
    files = [done.folder / RESULTS, *sorted((done.folder / "scores").iterdir())]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    again = compare(sample, NAMES, out=done.folder, seeds=(1, 2), max_fpr=0.1, settings=tiny_settings)
    assert again.results == done.results
    assert again.page.short == done.page.short
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


def test_invalid_calls_are_rejected_before_any_run(sample: Path, tmp_path: Path) -> None:
    refused = [
        (["minilm-logrek"], {}, ConfigError, "no preset is called"),
        (["tfidf"], {"settings": {"data.test": 0}}, DataError, r"data\.test is 0"),
        (["tfidf"], {"settings": {"data.text": "words"}}, DataError, "has no column 'words'"),
    ]
    for names, arguments, error, said in refused:
        with pytest.raises(error, match=said):
            compare(sample, names, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seeds": ()}, "seed"),
        ({"seeds": (-1,)}, "seed"),
        ({"seeds": (1, 1)}, "seed"),
        ({"max_fpr": 2}, "max_fpr"),
        ({"max_fpr": 0}, "max_fpr"),
    ],
)
def test_settings_are_checked_before_any_run(
    arguments: dict[str, object], said: str, sample: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        compare(sample, NAMES, out=tmp_path / "out", settings=tiny_settings, **{"seeds": (1,), **arguments})
    assert not (tmp_path / "out").exists()


def test_classes_and_columns_of_any_name(sample: Path, tmp_path: Path) -> None:
    """Three classes, one of them markup, and slice names that could break a table."""
    reviews = read(sample)
    kinds = ["<script>", "a|b", "<b>x</b>"]
    data = {
        "text": reviews.texts,
        "label": [kinds[row % 3] for row in range(len(reviews))],
        "<i>column</i>": [f"<b>{row // 4 % 2}</b>" for row in range(len(reviews))],
        "split": ["train" if row % 4 < 2 else "validation" if row % 4 == 2 else "test" for row in range(len(reviews))],
    }
    done = compare(data, ["tfidf"], out=tmp_path, seeds=(1,))
    html = assert_whole(tmp_path)
    assert not html.tags & {"b", "i"}
    assert kinds[0] in html.text
    assert "<b>1</b>" in html.text
    assert done.results[0].positive is None
    assert "recall at 1 %" not in html.text
    assert [section.title for section in done.page.sections] == [
        "Scores", "Differences", "Accuracy and cost", "Classes", "Slices", "Leakage audit"
    ]  # fmt: skip


def test_failed_runs_are_in_the_report(sample: Path, tiny_settings: dict[str, object], tmp_path: Path) -> None:
    settings = {**tiny_settings, "encoder__repo": str(tmp_path / "absent")}
    done = compare(sample, ["minilm-logreg"], out=tmp_path / "out", seeds=(1,), settings=settings)
    assert [one.outcome for one in done.results] == ["failed", "done", "done"]
    html = assert_whole(tmp_path / "out")
    assert "Failed runs: 1; see below." in html.text
    assert "minilm-logreg, seed 1: EncoderError: " in html.text
    assert str(tmp_path / "absent") in html.text
