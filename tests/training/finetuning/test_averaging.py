"""Model soups: averaging, and the folders of their runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from reviewguard.errors import CheckpointError
from reviewguard.training.finetuning import averaging
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.finetuning.loop import RESULT


def test_weights_are_averaged_by_name() -> None:
    one, two = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(5.0)}, {"b": torch.tensor(7.0), "a": torch.tensor([3.0, -2.0])}
    averaged = load(averaging.average([save(one), save(two)]))
    np.testing.assert_array_equal(averaged["a"], [2, 0])
    np.testing.assert_array_equal(averaged["b"], 6)


def test_each_run_has_a_subfolder_unless_it_is_the_only_one(tmp_path: Path) -> None:
    assert averaging.runs_of(Run(folder=tmp_path), [7]) == [Run(folder=tmp_path)]
    assert averaging.runs_of(Run(), [7, 8]) == [Run(), Run()]
    assert averaging.runs_of(Run(folder=tmp_path), [7, 8]) == [Run(folder=tmp_path / "seed-7"), Run(folder=tmp_path / "seed-8")]


def test_only_the_first_run_must_exist_on_a_resume(tmp_path: Path) -> None:
    assert [run.resume for run in averaging.runs_of(Run(folder=tmp_path, resume=True), [0, 1, 2])] == [
        True,
        "if-possible",
        "if-possible",
    ]
    assert [run.resume for run in averaging.runs_of(Run(folder=tmp_path, resume="if-possible"), [0, 1])] == ["if-possible"] * 2


def test_finished_runs_do_not_start_over_while_others_are_missing(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / RESULT).touch()
    assert len(averaging.runs_of(Run(folder=tmp_path), [0, 1])) == 2, "all runs are finished, so they may start over"
    with pytest.raises(CheckpointError, match="2 finished runs of 3; pass resume=True"):
        averaging.runs_of(Run(folder=tmp_path), [0, 1, 2])
    assert len(averaging.runs_of(Run(folder=tmp_path, resume=True), [0, 1, 2])) == 3
