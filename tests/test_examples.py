"""The examples run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reviewguard import Classifier

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder: Path, *command: object) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train(tmp_path: Path):
    assert "labelled" in run(tmp_path, EXAMPLES / "train.py")
    assert Classifier.from_pretrained(tmp_path / "demo-output" / "onnx").predict(["Good."]).shape == (1,)


def test_compare(tmp_path: Path):
    assert "Most accurate" in run(tmp_path, EXAMPLES / "compare.py")
    assert "minilm-logreg" in (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")


def test_grid_search(tmp_path: Path):
    assert "best: {'C':" in run(tmp_path, EXAMPLES / "grid_search.py")
    assert Classifier.from_pretrained(tmp_path / "tuned").score(["Good."], ["real"]) in (0, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_several_processes(tiny_encoder: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'backend = "finetune"\n[encoder]\nrepo = "{tiny_encoder}"\nmax_length = 32\n[loop]\nepochs = 1\n')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert "rows" in run(tmp_path, *launcher, EXAMPLES / "several_gpus.py", sample, recipe)
    assert Classifier.from_pretrained(tmp_path / "model").predict(["Good."]).shape == (1,)
