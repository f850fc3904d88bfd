"""Leave-out evaluation by columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import assert_whole, tables

from reviewguard.config import DataConfig
from reviewguard.data.near import fold
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError, DataError
from reviewguard.experiments import Experiment, transfer
from reviewguard.experiments.leave_out import SCORED, Cell, _cells, _parts, _whole

pytestmark = pytest.mark.usefixtures("no_processes")

COLUMNS = ("generator", "domain")


@pytest.fixture(scope="module")
def data(sample: Path) -> dict[str, list[str]]:
    """Two generators in two domains; human rows have the generator of their file."""
    reviews = read(sample)
    rows = range(len(reviews))
    return {
        "text": [text or "" for text in reviews.texts],
        "label": [label or "" for label in reviews.labels],
        "generator": [f"g{row // 2 % 2}" for row in rows],
        "domain": ["products" if row < len(rows) // 2 else "hotels" for row in rows],
    }


@pytest.fixture(scope="module")
def done(no_processes: None, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return transfer({"all": data}, ["tfidf"], out=tmp_path_factory.mktemp("left"), leave_out=COLUMNS, max_fpr=0.1)


def test_there_is_a_run_for_each_combination(done: Experiment) -> None:
    runs = [one for one in done.results if one.job.name == "tfidf"]
    names = {"g0, products", "g0, hotels", "g1, products", "g1, hotels"}
    assert {one.job.trained_on for one in runs} == {f"all but {name}" for name in names}
    assert all(one.outcome == "done" for one in runs)
    assert_whole(done.folder)
    table = next(iter(tables((done.folder / "report.md").read_text(encoding="utf-8"))))
    assert {row[0] for row in table[1:]} == names
    found = {row[0]: float(row[2]) for row in table[1:]}
    assert f"{np.mean(list(found.values())):.0f} % on average" in done.page.short[0]
    assert all(0 <= value <= 100 for value in found.values())


def test_left_out_rows_are_scored_and_never_trained_on(data: dict[str, Any]) -> None:
    source, positive = _whole([data], COLUMNS, DataConfig())
    for cell in _cells(source, COLUMNS, positive):
        generator, domain = cell.values.values()
        parts = _parts(source, cell, positive)
        for part in (parts["train"], parts["validation"]):
            rows = list(zip(part.labels, part.columns["generator"], part.columns["domain"], strict=True))
            assert all(own != domain for _, _, own in rows)
            assert not any(label == positive and made == generator for label, made, _ in rows)
            assert any(made == generator for label, made, _ in rows if label != positive)  # human rows stay
        scored = parts["scored"][SCORED]
        assert set(scored.columns["domain"]) == {domain}
        of_positives = [g for g, label in zip(scored.columns["generator"], scored.labels, strict=True) if label == positive]
        assert set(of_positives) == {generator}
        trained = {fold(text or "") for part in (parts["train"], parts["validation"]) for text in part.texts}
        assert not trained & {fold(text or "") for text in scored.texts}


@settings(deadline=None)
@given(
    cell=st.tuples(st.sampled_from("ab"), st.sampled_from("xy")),
    row=st.tuples(st.sampled_from("ab"), st.sampled_from("xy")),
    positive=st.booleans(),
)
def test_what_a_cell_leaves_out(cell: tuple[str, str], row: tuple[str, str], positive: bool) -> None:
    of, own = Cell(dict(zip(COLUMNS, cell, strict=True))), dict(zip(COLUMNS, row, strict=True))
    same = [one == other for one, other in zip(cell, row, strict=True)]
    assert of.leaves_out(own, positive) == ((positive and same[0]) or same[1])
    assert of.scores(own, positive) == (all(same) if positive else same[1])
    assert not of.scores(own, positive) or of.leaves_out(own, positive)


def test_one_column_scores_against_held_out_negatives(data: dict[str, Any]) -> None:
    source, positive = _whole([data], ["generator"], DataConfig())
    parts = _parts(source, Cell({"generator": "g0"}), positive)
    scored = parts["scored"][SCORED]
    negatives = [text for text, label in zip(scored.texts, scored.labels, strict=True) if label != positive]
    assert set(negatives) <= set(source.scored.texts)


def test_invalid_calls_are_rejected(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'generater' to leave out by; .*generator"):
        transfer([data], ["tfidf"], out=tmp_path, leave_out=["generater"])
    with pytest.raises(ConfigError, match="give one of the two"):
        transfer([data], ["tfidf"], out=tmp_path, leave_out=["generator"], by="domain")
    with pytest.raises(DataError, match="has the same generator, one"):
        transfer([{**data, "generator": ["one"] * len(data["text"])}], ["tfidf"], out=tmp_path, leave_out=["generator"])
