"""Transfer: trained on one source, scored on the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import assert_measured
from pages import assert_whole, tables

from reviewguard.config import DataConfig
from reviewguard.data.near import fold
from reviewguard.data.reviews import Reviews, read
from reviewguard.errors import ConfigError, DataError
from reviewguard.experiments import Experiment, transfer
from reviewguard.experiments.audit import CONTROL
from reviewguard.experiments.rows import Source, divide_source

pytestmark = pytest.mark.usefixtures("no_processes")

ARMS = {
    "a": ["a"],
    "b": ["b"],
    "c": ["c"],
    "all but a": ["b", "c"],
    "all but b": ["a", "c"],
    "all but c": ["a", "b"],
    "all": ["a", "b", "c"],
}


@pytest.fixture(scope="module")
def data(sample: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Three sources that share 40 texts, ignoring case."""
    reviews = read(sample)
    texts, labels = [text or "" for text in reviews.texts], [label or "" for label in reviews.labels]
    shared = [text.upper() + "!" for text in texts[:40]]
    return {
        name: (how + texts[start : start + 80], labels[:40] + labels[start : start + 80])
        for name, how, start in (("a", texts[:40], 40), ("b", shared, 120), ("c", texts[:40], 200))
    }


@pytest.fixture(scope="module")
def sources(data: dict[str, Any]) -> dict[str, Source]:
    return {name: divide_source(read(one), DataConfig(), name) for name, one in data.items()}


@pytest.fixture(scope="module")
def done(no_processes: None, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return transfer(data, ["tfidf"], out=tmp_path_factory.mktemp("transfer"), max_fpr=0.1)


def _scored(sources: dict[str, Source], arm: str) -> dict[str, Reviews]:
    """Rows of each source whose text is not in the training or validation rows of an arm; independent of the package."""
    known = [text for name in ARMS[arm] for part in (sources[name].train, sources[name].validation) for text in part.texts]
    trained = {fold(text or "") for text in known}
    return {
        name: source.scored.take(row for row, text in enumerate(source.scored.texts) if fold(text or "") not in trained)
        for name, source in sources.items()
    }


def test_every_arm_is_trained_and_scored_on_every_source(done: Experiment, sources: dict[str, Source]) -> None:
    *results, control = done.results
    assert [one.job.trained_on for one in results] == list(ARMS)
    assert (control.job.name, control.job.trained_on) == (CONTROL, "all")
    for one in results:
        assert one.outcome == "done"
        assert one.scores.keys() == set("abc")
        assert one.cleaning.rows_in == sum(len(sources[name].train) for name in ARMS[one.job.trained_on])


def test_scored_texts_are_never_training_texts(done: Experiment, sources: dict[str, Source]) -> None:
    left_out = 0
    for one in done.results[:-1]:
        scored = _scored(sources, one.job.trained_on)
        assert_measured(one, scored, done.folder)  # checks the number of rows too
        left_out += sum(len(source.scored) - len(scored[name]) for name, source in sources.items())
    assert left_out > 10, "some texts are in the scored rows of one source and the training rows of another"


def test_the_report(done: Experiment) -> None:
    html = assert_whole(done.folder)
    assert html.text.startswith("\n\n\n\n\nTransfer between a, b, c")
    recall, wrong, auc, accuracy, *_ = tables((done.folder / "report.md").read_text())
    of = {one.job.trained_on: one for one in done.results[:-1]}
    for table, metric in ((recall, "recall"), (wrong, "false_positive_rate"), (auc, "roc_auc"), (accuracy, "accuracy")):
        assert [row[0] for row in table[1:]] == list(ARMS)
        assert table[0][1:] == ["a", "b", "c"]
        for arm, *cells in table[1:]:
            scores = of[arm].scores if metric == "accuracy" else of[arm].at_point
            for name, cell in zip("abc", cells, strict=True):
                assert float(cell.split()[0]) == pytest.approx(100 * scores[name].metrics[metric].value, abs=0.006)
    elsewhere = [of[arm].at_point[name].metrics["recall"].value for arm in "abc" for name in "abc" if arm != name]
    finding = f"recall on another source is {100 * min(elsewhere):.0f} to {100 * max(elsewhere):.0f} %"
    assert finding in done.page.short[0]
    assert f"in {sum(value < 0.5 for value in elsewhere)} of 6 cases" in done.page.short[0]
    left_out = {name: of[f"all but {name}"].at_point[name].metrics["recall"].value for name in "abc"}
    assert ", ".join(f"{100 * value:.0f} % on {name}" for name, value in left_out.items()) in done.page.short[1]
    assert {f"Leakage audit: {name}" for name in "abc"} <= {section.title for section in done.page.sections}


def test_a_column_splits_a_file_into_sources(sample: Path, tiny_settings: dict[str, object], tmp_path: Path) -> None:
    reviews = read(sample)
    language = ["en" if row % 2 else "de" for row in range(len(reviews))]
    data = {"text": reviews.texts, "label": reviews.labels, "language": language}
    found = transfer([data], ["minilm-logreg"], out=tmp_path, by="language", settings=tiny_settings)
    assert [(one.job.name, one.job.trained_on) for one in found.results[:-1]] == [
        (name, arm) for arm in ("de", "en", "all") for name in ("minilm-logreg", "tfidf")
    ]
    whole = read(data)
    by_kind = {kind: whole.take(row for row, value in enumerate(language) if value == kind) for kind in ("de", "en")}
    divided = {kind: divide_source(part, DataConfig(), kind) for kind, part in by_kind.items()}
    for one in found.results[:-1]:
        assert_measured(one, {kind: source.scored for kind, source in divided.items()}, tmp_path)
        assert np.sum(one.scores["de"].confusion) == len(divided["de"].scored)
    html = assert_whole(tmp_path)
    assert "minilm-logreg" in html.text
    assert "Recall of tfidf by training source and scored source." in [image["alt"] for image in html.images]


def _rows(labels: str, n: int = 60) -> tuple[list[str], list[str]]:
    return [f"{labels} text {row} of {row * 7} words" for row in range(n)], [labels[row % len(labels)] for row in range(n)]


@pytest.mark.parametrize(
    ("given", "arguments", "error", "said"),
    [
        ({"a": _rows("xy")}, {}, DataError, "got 'a'; add another, or name a column with by="),
        ({}, {}, DataError, "transfer needs at least two sources; got none"),
        ({"a": _rows("xy"), "b": _rows("xz")}, {}, DataError, "the same two labels in every source; got a: x, y; b: x, z"),
        ({"a": _rows("xyz"), "b": _rows("xyz")}, {}, DataError, "the same two labels in every source; got a: x, y, z"),
        ({"a": _rows("xy"), "b": _rows("xy")}, {"by": "language"}, DataError, "a has no column 'language' to split it by"),
        ({"a": _rows("xy"), "b": _rows("xy")}, {"presets": ["minilm", "x"]}, ConfigError, "no preset is called 'x'"),
        ({"all": _rows("xy"), "b": _rows("xy")}, {"presets": ["tfidf"]}, DataError, "'all'"),
    ],
)
def test_invalid_sources_are_rejected(
    given: Any, arguments: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        transfer(given, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_two_sources_of_one_name_are_rejected(sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "sample_reviews.csv"
    other.write_bytes(sample.read_bytes())
    with pytest.raises(DataError, match="two sources are called 'sample_reviews'; pass a mapping from names to data"):
        transfer([sample, other], ["tfidf"], out=tmp_path / "out")


def test_unusable_training_rows_are_dropped(data: dict[str, Any], tmp_path: Path) -> None:
    """As in all training; with a split column, they stay until a recipe cleans them."""

    def assigned(texts: list[str], labels: list[str]) -> dict[str, list[str | None]]:
        split = [("train", "train", "validation", "test")[row // 2 % 4] for row in range(len(texts))]
        return {"text": [None, *texts[1:]], "label": labels, "split": list(split)}

    found = transfer({name: assigned(*data[name]) for name in "bc"}, ["tfidf"], out=tmp_path)
    assert [one.outcome for one in found.results] == ["done"] * 4
