"""The GPU benchmark runs unattended, so it is tested here at tiny sizes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpu_qlora():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu_qlora")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_model_and_recipe_trains_at_tiny_sizes(tmp_path: Path):
    command = [sys.executable, str(BENCHMARKS / "gpu_qlora.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path), "--also"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu-qlora.json").read_text())
    runs = {(run["preset"], run["recipe"]): run for run in result["runs"]}
    presets = ("stella-qlora", "flan-t5-qlora")
    assert runs.keys() == {(preset, recipe) for preset in presets for recipe in ("ours", "study")}
    for run in runs.values():
        assert run["outcome"] == "trained", run
        assert run["recipe"] == "study" or 0 < run["loss"] < 10  # logged every ten steps
        assert len(run["steps"]) == (10 if run["recipe"] == "ours" else 4)
    for preset in presets:
        assert all(real <= padded < 16 * 32 for padded, real, _ in runs[preset, "ours"]["steps"])
        assert {padded for padded, _, _ in runs[preset, "study"]["steps"]} == {16 * 32}
        assert runs[preset, "ours"]["padding_share"] < runs[preset, "study"]["padding_share"]
    page = (tmp_path / "gpu-qlora.md").read_text()
    assert "**A test of the script at tiny sizes on cpu: no result.**" in page
    assert "`flan-t5-qlora`, as it ships, trains in 6 GiB" in page


def test_tokens_with_padding(gpu_qlora: ModuleType):
    import numpy as np

    lengths = np.array([[2, 3, 5, 7], [1, 1, 1, 8]])
    assert gpu_qlora.padded_tokens(lengths, "ours", 2, 9).tolist() == [20, 18]
    assert gpu_qlora.padded_tokens(lengths, "ours", 4, 9).tolist() == [28, 32]
    assert gpu_qlora.padded_tokens(lengths, "study", 2, 9).tolist() == [36, 36]


def test_epoch_time_is_interpolated_from_steps(gpu_qlora: ModuleType):
    import numpy as np

    lengths = np.array([[2, 2], [4, 4], [6, 6], [6, 6]])
    # The first pass is a warm-up and does not count.
    steps = [[12, 12, 9.0], [4, 4, 9.0], [12, 12, 3.0], [4, 4, 1.0]]
    found = gpu_qlora.extrapolated({"recipe": "ours", "micro_batch": 2}, steps, lengths, 10)
    assert found["seconds_per_step"] == (1 + 2 + 3 + 3) / 4
    assert found["real_tokens_per_second"] == found["padded_tokens_per_second"] == 36 / 9
    assert found["epoch_minutes"] == pytest.approx(2.25 * 14_000 / 60)
    even = [[20, 12, 9.0], [20, 4, 9.0], [20, 12, 3.0], [20, 4, 2.0]]
    found = gpu_qlora.extrapolated({"recipe": "study", "micro_batch": 2}, even, lengths, 10)
    assert found["seconds_per_step"] == 2.5
    assert found["padded_tokens_per_second"] == 80 / 10


def test_lengths_keep_their_distribution(gpu_qlora: ModuleType):
    assert gpu_qlora.scaled([0, 1, 2, 3, 4], 2) == [0, 3, 7]
    assert gpu_qlora.scaled([0, 1, 2, 3, 4], 4) == [0, 1, 2, 3, 4]


def test_missing_packages_and_old_versions_are_named(gpu_qlora: ModuleType, monkeypatch: pytest.MonkeyPatch):
    assert gpu_qlora.missing() == []
    monkeypatch.setattr(gpu_qlora, "version", lambda name: "5.17.0" if name == "transformers" else "99")
    assert gpu_qlora.missing() == ["transformers>=5.23 (here: 5.17.0)"]


def test_running_out_of_memory_is_a_result(gpu_qlora: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """If a card is too small, the next larger one is tried, and the run continues."""
    monkeypatch.setattr(sys, "argv", ["gpu_qlora.py", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--also", "8"])
    asked = []

    def run_apart(script: str, spec: dict[str, object], limit: float, env: dict[str, str]) -> dict[str, object]:
        if spec["do"] == "prepare":
            return {"outcome": "written", "parameters": {}, "batches": [[4] * 16, [8] * 16]}
        asked.append((spec["preset"], spec["width"], spec["cap_gib"]))
        if spec["preset"] == "flan-t5-qlora" and spec["cap_gib"] == 6:
            return {"outcome": "out of memory", "error": "of 6 GiB"}
        if spec["width"]:
            return {"outcome": "failed", "error": "of itself"}
        return {"outcome": "trained", "steps": [[64, 64, 1.0], [128, 128, 2.0]] * 2, "peak_gib": 2.5}

    monkeypatch.setattr(gpu_qlora, "run_apart", run_apart)
    gpu_qlora.main()
    stella, t5 = "stella-qlora", "flan-t5-qlora"
    capped = [(stella, None, 6), (stella, 32, 6), (t5, None, 6), (t5, None, 8), (t5, 32, 6), (t5, 32, 8)]
    assert asked == [*capped, (stella, None, None), (t5, None, None)]
    page = (tmp_path / "gpu-qlora.md").read_text()
    assert "`flan-t5-qlora`, as it ships, does not train in 6 GiB: out of memory." in page
    assert "`flan-t5-qlora`, as it ships, trains in 8 GiB, with a peak of 2.50 GiB." in page
    assert "`stella-qlora`, as the study padded, does not train in 6 GiB: failed." in page


def test_running_out_of_memory_is_detected_from_the_cause(gpu_qlora: ModuleType):
    import torch

    from reviewguard.errors import TrainingError

    ran_out = importlib.import_module("_qlora")._ran_out
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except RuntimeError as error:
            raise TrainingError("out of memory; the plan was ...") from error
    except TrainingError as error:
        assert ran_out(error)
    assert not ran_out(TrainingError("the loss is nan"))
