"""Distributed training (DDP and FSDP) gives the same result as training in one process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from reviewguard import Classifier

SCRIPT = """
import json, os, sys
from pathlib import Path

if os.environ.get("ACCELERATE_USE_FSDP"):
    # accelerate rejects FSDP on CPUs only by the name of the distributed type; with another name, it runs over gloo.
    from accelerate import state
    from accelerate.utils import DistributedType

    begin = state.PartialState.__init__

    def begin_renamed(self, *arguments, **named):
        begin(self, *arguments, **named)
        self.distributed_type = DistributedType.MULTI_XPU

    state.PartialState.__init__ = begin_renamed

from reviewguard import Classifier

preset, settings, data, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
classifier = Classifier(preset, **settings)
classifier.train(data, run_dir=out / "run", resume="if-possible")
classifier.save(out / "model")
"""
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
FSDP = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
FSDP |= {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
SETTINGS = {
    "loop__batch_size": 16,
    "loop__micro_batch_size": 4,
    "loop__learning_rate": 1e-3,
    "loop__dropout": 0.0,
    "lora__dropout": 0.0,
    "loop__precision": "fp32",
}


@pytest.fixture
def encoder(tiny_encoder: Path, tmp_path: Path) -> Path:
    """The tiny encoder without dropout, which differs between processes."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))
    return folder


def run(launcher: list[str], preset: str, settings: dict[str, object], sample: Path, out: Path, **environment: str) -> None:
    """Train and save a model with a launcher."""
    (script := out.parent / "script.py").write_text(SCRIPT)
    command = [*launcher, str(script), preset, json.dumps(settings), str(sample), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("preset", ["minilm-finetune", pytest.param("minilm-qlora", marks=pytest.mark.slow)])
def test_two_processes_match_one_process(
    preset: str, encoder: Path, tiny_settings: dict[str, object], sample: Path, tmp_path: Path
) -> None:
    def train(name: str, launcher: list[str], epochs: int = 2, **environment: str) -> list[dict[str, float]]:
        settings = {**tiny_settings, **SETTINGS, "encoder__repo": str(encoder), "loop__epochs": epochs}
        run(launcher, preset, settings, sample, tmp_path / name, **environment)
        return [json.loads(line) for line in (tmp_path / name / "run" / "metrics.jsonl").read_text().splitlines()]

    alone, replicated = train("alone", [sys.executable]), train("replicated", LAUNCHER)
    sharded = train("sharded", LAUNCHER, **FSDP)
    # Each run resumes from the full state of the other's checkpoint.
    (tmp_path / "alone" / "run").rename(tmp_path / "run")
    (tmp_path / "sharded" / "run").rename(tmp_path / "alone" / "run")
    (tmp_path / "run").rename(tmp_path / "sharded" / "run")
    curves = [alone, replicated, sharded]
    longer = [train("alone", [sys.executable], epochs=3), train("sharded", LAUNCHER, epochs=3, **FSDP)]
    for reference, *others in (curves, longer):
        for curve in others:
            _require_same(reference, curve)

    texts = ["a kettle", "Great pan, highly recommend it to everyone!", "?"]
    models = {name: Classifier.from_pretrained(tmp_path / name / "model") for name in ("alone", "replicated", "sharded")}
    histories = {name: model.manifest.training["history"] for name, model in models.items() if model.manifest.training}
    assert {name: history["processes"] for name, history in histories.items()} == {"alone": 1, "replicated": 2, "sharded": 2}
    assert len({history["trainable"] for history in histories.values()}) == 1
    assert len({history["parameters"] for history in histories.values()}) == 1
    for name in ("alone", "sharded"):
        assert [resumption["restored"] for resumption in histories[name]["resumed"]][-1] == "full state"
    np.testing.assert_allclose(models["alone"].predict_proba(texts), models["sharded"].predict_proba(texts), atol=1e-4)


@pytest.mark.slow
def test_model_soup_of_sharded_runs(encoder: Path, tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    settings = {**tiny_settings, **SETTINGS, "encoder__repo": str(encoder), "loop__epochs": 1, "model_soup": 2}
    run([sys.executable], "minilm-finetune", settings, sample, tmp_path / "alone")
    run(LAUNCHER, "minilm-finetune", settings, sample, tmp_path / "sharded", **FSDP)
    texts = ["a kettle", "Great pan, highly recommend it to everyone!", "?"]
    alone, sharded = (Classifier.from_pretrained(tmp_path / name / "model").predict_proba(texts) for name in ("alone", "sharded"))
    np.testing.assert_allclose(alone, sharded, atol=1e-4)


def _require_same(one: list[dict[str, float]], two: list[dict[str, float]]) -> None:
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for name in ("loss", "grad_norm", "eval_loss", "eval_f1"):
        values = [[entry[name] for entry in curve if name in entry] for curve in (one, two)]
        assert len(values[0]) >= 2
        np.testing.assert_allclose(values[0], values[1], rtol=2e-4, err_msg=name)


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **environment}
    with open(log, "w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def wait_for_checkpoint(run: Path, *launchers: subprocess.Popen[bytes]) -> None:
    while not list(run.glob("checkpoint-*/manifest.json")):
        assert [launcher.poll() for launcher in launchers] == [None] * len(launchers), (
            f"a launcher ended early; see the logs in {run.parent}"
        )
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_launcher_restarts_a_killed_worker_from_the_last_checkpoint(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {**SETTINGS, "encoder__max_length": 64, "loop__epochs": 2, "loop__save_steps": 4}

    def launch(name: str, *more: str) -> subprocess.Popen[bytes]:
        command = [*LAUNCHER, *more, str(tmp_path / "script.py"), "minilm-finetune", json.dumps(settings), str(sample)]
        return start([*command, str(tmp_path / name)], tmp_path / f"{name}.log")

    assert launch("whole").wait() == 0, (tmp_path / "whole.log").read_text()
    launched = launch("killed", "--max-restarts=1")
    wait_for_checkpoint(tmp_path / "killed" / "run", launched)
    worker = next(child for child in psutil.Process(launched.pid).children() if child.environ().get("RANK") == "1")
    worker.kill()
    assert launched.wait() == 0, (tmp_path / "killed.log").read_text()

    histories = {}
    for name in ("whole", "killed"):
        manifest = Classifier.from_pretrained(tmp_path / name / "model").manifest
        assert manifest.training is not None
        histories[name] = manifest.training["history"]
    assert [resumption["restored"] for resumption in histories["whole"]["resumed"]] == ["from the start"]
    begun, resumed = histories["killed"]["resumed"]
    assert (begun["restored"], resumed["restored"]) == ("from the start", "full state")
    assert resumed["step"] >= 4
    losses = [[epoch["loss"] for epoch in history["epochs"]] for history in histories.values()]
    np.testing.assert_allclose(losses[0][-1], losses[1][-1], rtol=1e-4)


ON_TWO_MACHINES = {
    "torchrun": "-m torch.distributed.run --nnodes=2 --nproc_per_node=1 --max-restarts=1 --local-addr=localhost"
    " --rdzv_backend=c10d --rdzv_endpoint=localhost:{port} --rdzv_id=two",
    "accelerate": "-m accelerate.commands.launch --multi_gpu --num_machines=2 --machine_rank={machine} --num_processes=2"
    " --main_process_ip=127.0.0.1 --main_process_port={port}",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", ON_TWO_MACHINES)
def test_launchers_on_two_machines_train_one_model(launcher: str, sample: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = "--set loop.epochs=1 --set encoder.max_length=32 --set loop.precision=fp32 --set loop.save_steps=4"
    folders = f"--out {tmp_path / 'model'} --run-dir {tmp_path / 'run'}"
    trained = f"train {sample} --preset minilm-finetune {settings} {folders} --resume-if-possible".split()

    def launch(machine: int) -> subprocess.Popen[bytes]:
        command = ON_TWO_MACHINES[launcher].format(machine=machine, port=port).split()
        command = [sys.executable, *command, "-m", "reviewguard", *trained]
        return start(command, tmp_path / f"{machine}.log", ACCELERATE_USE_CPU="true")

    machines = [launch(0), launch(1)]
    if launcher == "torchrun":
        wait_for_checkpoint(tmp_path / "run", *machines)
        psutil.Process(machines[1].pid).children()[0].kill()
    for machine in machines:
        assert machine.wait() == 0, (tmp_path / "0.log").read_text() + (tmp_path / "1.log").read_text()
    manifest = Classifier.from_pretrained(tmp_path / "model").manifest
    assert manifest.training is not None
    history = manifest.training["history"]
    assert history["processes"] == 2
    assert [resumption["restored"] for resumption in history["resumed"]] == [
        "from the start",
        *["full state"] * (launcher == "torchrun"),
    ]
