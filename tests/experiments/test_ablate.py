"""Ablation: one setting changed at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measured import assert_measured
from pages import assert_whole, tables

from reviewguard.config import DataConfig
from reviewguard.data.reviews import read
from reviewguard.errors import ConfigError
from reviewguard.experiments import Experiment, ablate
from reviewguard.experiments.audit import CONTROL
from reviewguard.experiments.rows import divide_source

pytestmark = pytest.mark.usefixtures("no_processes")

PRESET = "minilm-logreg"
CHANGED = [f"{PRESET}+C=0.001", f"{PRESET}+C=100", f"{PRESET}+data.normalization=none"]


@pytest.fixture(scope="module")
def done(
    no_processes: None, sample: Path, tiny_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    asked = ["C=0.001,1,100", "data.normalization=typography,none"]
    return ablate(sample, PRESET, asked, out=tmp_path_factory.mktemp("ablate"), seeds=(1, 2), settings=tiny_settings)


def test_the_value_of_the_preset_is_not_run_twice(done: Experiment) -> None:
    found = [(one.job.name, one.job.recipe.get("seed")) for one in done.results]
    assert found == [*((name, seed) for name in (PRESET, *CHANGED) for seed in (1, 2)), (CONTROL, 42)]
    assert {one.outcome for one in done.results} == {"done"}
    assert len({one.key for one in done.results}) == len(done.results)


def test_one_setting_is_changed_at_a_time(done: Experiment) -> None:
    recipes = {one.job.name: one.job.recipe for one in done.results if one.job.recipe.get("seed") == 1}
    base = recipes[PRESET]
    assert recipes[CHANGED[0]] == {**base, "C": 0.001}
    assert recipes[CHANGED[1]] == {**base, "C": 100}
    assert recipes[CHANGED[2]] == {**base, "data": {**base["data"], "normalization": "none"}}


def test_results_match_the_logits(done: Experiment, sample: Path) -> None:
    scored = divide_source(read(sample), DataConfig(), "sample_reviews").scored
    for one in done.results[:-1]:
        assert_measured(one, {"scored": scored}, done.folder)


def test_the_report(done: Experiment) -> None:
    html = assert_whole(done.folder)
    for name in (PRESET, *CHANGED):
        assert name in html.text
    assert done.page.short[0].startswith(f"{PRESET}: accuracy ")
    assert done.page.short[0].endswith("3 changes tested.")
    of_c, of_normalization, scores, differences, *_ = tables((done.folder / "report.md").read_text())
    assert [row[0] for row in of_c] == ["C", "0.001", "1 (preset)", "100"]
    assert [row[0] for row in of_normalization] == ["data.normalization", "typography (preset)", "none"]
    accuracy = {
        name: 100 * np.mean([one.scores["scored"].metrics["accuracy"].value for one in done.results if one.job.name == name])
        for name in (PRESET, *CHANGED)
    }
    for row, name in zip(of_c[1:], (CHANGED[0], PRESET, CHANGED[1]), strict=True):
        assert float(row[1].split()[0]) == pytest.approx(accuracy[name], abs=0.006)
        less = 0 if name == PRESET else float(row[4].split()[0])
        assert less == pytest.approx(accuracy[name] - accuracy[PRESET], abs=0.006)
    assert {row[0] for row in scores[1:]} == {PRESET, *CHANGED}
    assert {row[0] for row in differences[1:]} == set(CHANGED)
    reported = [
        name for name in CHANGED if any(f"{name.removeprefix(PRESET + '+')}: " in sentence for sentence in done.page.short)
    ]
    assert reported == [name for name in CHANGED if [row[3] for row in differences[1:] if row[0] == name] == ["*"]]


def test_default_ablations_are_limited_to_settings_of_the_recipe(sample: Path, tmp_path: Path) -> None:
    found = ablate(sample, "tfidf", out=tmp_path, seeds=(1,))
    assert [one.job.name for one in found.results] == [
        "tfidf",
        "tfidf+data.normalization=study",
        "tfidf+data.normalization=none",
        "tfidf+data.near_duplicates=0",
        CONTROL,
    ]
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("preset", "asked", "said"),
    [
        (PRESET, ["D=1,2"], "D is not an option"),
        (PRESET, ["C=much"], "the recipe has an invalid value"),
        ("minilm-logrek", [], "no preset is called"),
        (PRESET, ["C"], "C"),
        (PRESET, ["C="], "C"),
    ],
)
def test_invalid_ablations_are_rejected(preset: str, asked: list[str], said: str, sample: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        ablate(sample, preset, asked, out=tmp_path / "out", seeds=(1,), settings={"encoder.repo": str(tmp_path)})
    assert not (tmp_path / "out").exists()


def test_the_report_survives_a_failed_preset(
    sample: Path, tiny_encoder: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "encoder.repo": str(tmp_path / "absent")}
    settings.pop("encoder__repo")
    asked = [f"encoder.repo={tiny_encoder}"]
    found = ablate(sample, PRESET, asked, out=tmp_path / "out", seeds=(1,), settings=settings)
    assert [one.outcome for one in found.results] == ["failed", "done", "done"]
    assert found.page.short[0] == f"{PRESET} itself failed, so there is nothing to compare with."
    assert "Failed runs: 1; see below." in assert_whole(tmp_path / "out").text
