"""Two processes that train together learn what one learns from the same batches, and only the first one writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reviewguard import Classifier

SCRIPT = """
import json, sys
from pathlib import Path
from reviewguard import Classifier

preset, settings, data, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
classifier = Classifier(preset, **settings)
classifier.train(data, run_dir=out / "run")
classifier.save(out / "model")
"""


@pytest.fixture
def encoder(tiny_encoder: Path, tmp_path: Path) -> Path:
    """The tiny encoder without dropout: each process would draw its own."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))
    return folder


@pytest.mark.parametrize("preset", ["minilm-finetune", "minilm-qlora"])
def test_two_processes_learn_what_one_learns(
    preset: str, encoder: Path, tiny_settings: dict[str, object], sample: Path, tmp_path: Path
) -> None:
    settings = {
        **tiny_settings,
        "encoder__repo": str(encoder),
        "loop__epochs": 2,
        "loop__batch_size": 16,
        "loop__micro_batch_size": 4,
        "loop__learning_rate": 1e-3,
        "loop__dropout": 0.0,
        "lora__dropout": 0.0,
        "loop__precision": "fp32",
    }
    arguments = [preset, json.dumps(settings), str(sample)]
    (tmp_path / "script.py").write_text(SCRIPT)
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, str(tmp_path / "script.py"), *arguments, str(one)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    together = [*launcher, str(tmp_path / "script.py"), *arguments, str(two)]
    for command in (alone, together):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    curves = [_log(folder) for folder in (one, two)]
    assert [entry["step"] for entry in curves[0]] == [entry["step"] for entry in curves[1]]
    for name in ("loss", "grad_norm", "eval_loss", "eval_f1"):
        values = [[entry[name] for entry in curve if name in entry] for curve in curves]
        assert len(values[0]) >= 2
        np.testing.assert_allclose(values[0], values[1], rtol=2e-4, err_msg=name)

    texts = ["a kettle", "Great pan, highly recommend it to everyone!", ""]
    models = [Classifier.from_pretrained(folder / "model") for folder in (one, two)]
    np.testing.assert_allclose(models[0].predict_proba(texts), models[1].predict_proba(texts), atol=1e-4)
    histories = [model.manifest.training["history"] for model in models if model.manifest.training]
    assert [history["processes"] for history in histories] == [1, 2]
    assert histories[0]["trainable"] == histories[1]["trainable"]


def _log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
