"""Resuming fine-tuning after interruptions, kills and damaged checkpoints.

The runs train a tiny encoder with dropout, 14 steps per epoch. If no state is lost, an interrupted run must give the same
probabilities as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import CheckpointError, ConfigError, TrainingError, TrainingInterrupted
from reviewguard.inference.scoring import Floats
from reviewguard.training.finetuning import checkpoint
from reviewguard.training.finetuning.callbacks import Guard, Stop
from reviewguard.training.finetuning.checkpoint import CheckpointManifest
from reviewguard.training.history import History

FINETUNE, QLORA = "minilm-finetune", "minilm-qlora"
STEPS = 14  # per epoch: 224 rows in batches of 16
LOOP = {"loop__epochs": 3, "loop__batch_size": 16, "loop__save_steps": 5, "loop__learning_rate": 1e-3, "loop__precision": "fp32"}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A model this small is faster with one thread, and sums in a fixed order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def texts(sample: Path) -> list[str]:
    return [text for text in read(sample).texts[:40] if text]


class Straight(NamedTuple):
    """An uninterrupted run."""

    settings: dict[str, object]
    probabilities: Floats
    history: History
    folder: Path


def run_straight(preset: str, settings: dict[str, object], sample: Path, texts: list[str], folder: Path) -> Straight:
    classifier = Classifier(preset, **settings)
    history = classifier.train(sample, run_dir=folder).history
    assert history is not None
    return Straight(settings, classifier.predict_proba(texts), history, folder)


@pytest.fixture(scope="module")
def straight(
    tiny_settings: dict[str, object], sample: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Straight:
    """A full fine-tune."""
    return run_straight(FINETUNE, {**tiny_settings, **LOOP}, sample, texts, tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture(scope="module")
def straight_qlora(
    tiny_settings: dict[str, object], sample: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Straight:
    """Adapters on a 4-bit encoder, with adapter dropout."""
    settings = {**tiny_settings, **LOOP, "lora__r": 4, "lora__dropout": 0.1}
    return run_straight(QLORA, settings, sample, texts, tmp_path_factory.mktemp("straight") / "run")


@contextlib.contextmanager
def at_checkpoint(step: int, happens: Callable[[], object], *, before: bool = False) -> Iterator[None]:
    """Call a function once, directly after (or before) the first checkpoint from this step on is sealed."""
    seal, done = checkpoint.seal, []

    def sealing(folder: Path, manifest: CheckpointManifest) -> None:
        now = manifest.step >= step and not done
        if now:
            done.append(manifest.step)
        if now and before:
            happens()
        seal(folder, manifest)
        if now and not before:
            happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "seal", sealing)
        yield


def interrupt(classifier: Classifier, data: Any, run: Path, step: int, signum: int = signal.SIGTERM, **arguments: Any) -> str:
    """Train until a checkpoint of this step, stop there by a signal, and return the message."""
    with (
        at_checkpoint(step, lambda: signal.raise_signal(signum)),
        pytest.raises(TrainingInterrupted) as caught,
    ):
        classifier.train(data, run_dir=run, **arguments)
    assert caught.value.signum == signum
    return str(caught.value)


@pytest.fixture(scope="module")
def interrupted(straight: Straight, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted in its second epoch, one step after the signal; tests that change it use `copied`."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    interrupt(Classifier(FINETUNE, **straight.settings), sample, folder, 20)
    assert whole(folder) == [21, 20, STEPS], "the two newest and the best"
    return folder


@pytest.fixture
def copied(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of `interrupted`, which tests may damage."""
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def whole(run: Path) -> list[int]:
    """Verify all checkpoints and return their steps, newest first."""
    return [checkpoint.verify(folder).step for folder in checkpoint.listed(run)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def resume(
    settings: dict[str, object], data: Any, run: Path, preset: str = FINETUNE, **arguments: Any
) -> tuple[Classifier, History]:
    classifier = Classifier(preset, **settings)
    history = classifier.train(data, run_dir=run, **{"resume": True, **arguments}).history
    assert history is not None
    return classifier, history


def assert_as_straight(classifier: Classifier, history: History, straight: Straight, texts: list[str]) -> None:
    np.testing.assert_allclose(classifier.predict_proba(texts), straight.probabilities, atol=1e-5)
    assert_ends_as(Path(history.run_dir), history, straight)


def assert_ends_as(run: Path, history: History, straight: Straight) -> None:
    """Compare the last weights: the model may have those of an epoch before the interruption."""
    last = 3 * STEPS
    assert weight_change(checkpoint.path_of(run, last), checkpoint.path_of(straight.folder, last)) <= 1e-5
    assert [epoch.f1 for epoch in history.epochs] == [epoch.f1 for epoch in straight.history.epochs]
    assert history.kept == straight.history.kept
    assert history.trainable == straight.history.trainable


def weight_change(one: Path, two: Path) -> float:
    """Largest difference of a trained weight between two checkpoints."""
    tensors = [load_file(folder / checkpoint.WEIGHTS) for folder in (one, two)]
    assert tensors[0].keys() == tensors[1].keys()
    return max(float((tensor - tensors[1][name]).abs().max()) for name, tensor in tensors[0].items())


def read_metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained_weights(classifier: Classifier) -> dict[str, torch.Tensor]:
    assert classifier._model is not None
    model = classifier._model.scorer
    assert isinstance(model, torch.nn.Module)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_has_weights_of(classifier: Classifier, folder: Path, atol: float = 0.0) -> None:
    weights = trained_weights(classifier)
    for name, tensor in load_file(folder / checkpoint.WEIGHTS).items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=atol, msg=f"{name} differs from {folder.name}")


# Exact resumes


def test_dropout_is_on_and_training_changes_the_model(straight: Straight, interrupted: Path) -> None:
    """Otherwise, the tests below would show little."""
    states = [load_file(checkpoint.path_of(interrupted, step) / "random-0.safetensors")["cpu"] for step in (20, 21)]
    assert not torch.equal(states[0], states[1]), "a step draws random numbers"
    assert weight_change(checkpoint.path_of(interrupted, 20), checkpoint.path_of(straight.folder, 3 * STEPS)) > 1e-3
    assert [epoch.step for epoch in straight.history.epochs] == [STEPS, 2 * STEPS, 3 * STEPS]


def test_run_resumes_exactly_after_a_signal(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    classifier, history = resume(straight.settings, sample, copied)
    assert_as_straight(classifier, history, straight, texts)
    (resumption,) = history.resumed
    assert (resumption.step, resumption.restored, resumption.lost, resumption.learning_rate) == (21, "full state", [], None)


def test_qlora_run_resumes_exactly_after_a_signal(
    straight_qlora: Straight, tmp_path: Path, sample: Path, texts: list[str]
) -> None:
    interrupt(Classifier(QLORA, **straight_qlora.settings), sample, tmp_path / "run", 20)
    classifier, history = resume(straight_qlora.settings, sample, tmp_path / "run", QLORA)
    assert_as_straight(classifier, history, straight_qlora, texts)
    assert history.resumed[0].restored == "full state"


def test_run_resumes_after_repeated_signals(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    interrupt(Classifier(FINETUNE, **straight.settings), sample, copied, 30, resume=True)
    classifier, history = resume(straight.settings, sample, copied)
    assert_as_straight(classifier, history, straight, texts)
    assert [resumption.step for resumption in history.resumed] == [21, 31]


def test_model_soup_resumes_the_interrupted_run(straight: Straight, tmp_path: Path, sample: Path) -> None:
    run, settings = tmp_path / "run", {**straight.settings, "model_soup": 2}
    shutil.copytree(straight.folder, run / "seed-42")
    interrupt(Classifier(FINETUNE, **settings), sample, run, 20, resume=True)
    assert whole(run / "seed-43")[0] == 21
    before = contents(run)
    with pytest.raises(CheckpointError, match="1 finished runs of 2; pass resume=True"):
        Classifier(FINETUNE, **settings).train(sample, run_dir=run)
    assert contents(run) == before
    classifier, history = resume(settings, sample, run)
    assert (history.averaged, history.resumed[-1].step, Path(history.run_dir)) == (2, 21, run / "seed-43")
    averaged, best = trained_weights(classifier), [(straight.folder, straight.history.kept), (run / "seed-43", history.kept)]
    one, two = (load_file(checkpoint.path_of(folder, step) / checkpoint.WEIGHTS) for folder, step in best)
    for name in one:
        torch.testing.assert_close(averaged[name], (one[name] + two[name]) / 2)


def test_epoch_that_ends_with_a_signal_is_evaluated(straight: Straight, tmp_path: Path, sample: Path, texts: list[str]) -> None:
    run, settings = tmp_path / "run", {**straight.settings, "loop__save_steps": STEPS - 1}
    interrupt(Classifier(FINETUNE, **settings), sample, run, STEPS - 1)
    assert whole(run) == [STEPS, STEPS - 1]
    assert checkpoint.verify(checkpoint.listed(run)[0]).best_step == STEPS
    classifier, history = resume(straight.settings, sample, run)
    assert_as_straight(classifier, history, straight, texts)


def test_signal_message_and_restored_handlers(straight: Straight, tmp_path: Path, sample: Path) -> None:
    run, seen = tmp_path / "run", []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("ours"))
    try:
        message = interrupt(Classifier(FINETUNE, **straight.settings), sample, run, 5, signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["ours"]
    assert f"stopped by signal {int(signal.SIGINT)} at step 6 of {3 * STEPS}" in message
    assert "resume=True" in message
    assert str(run) in message
    assert not (run / "result.json").exists()


def test_a_second_ctrl_c_ends_at_once() -> None:
    stop = Stop()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_interrupted_classifier_is_not_trained(straight: Straight, tmp_path: Path, sample: Path) -> None:
    classifier = Classifier(FINETUNE, **straight.settings)
    interrupt(classifier, sample, tmp_path / "run", 5)
    assert not hasattr(classifier, "classes_")


def test_metrics_log_has_each_step_once_after_a_resume(straight: Straight, copied: Path, sample: Path) -> None:
    # Entries logged after the last checkpoint must not occur twice.
    with open(copied / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"loss": 1.0, "step": 22}\n{"torn')
    resume(straight.settings, sample, copied)
    losses, evaluated = ([entry["step"] for entry in read_metrics(copied) if name in entry] for name in ("loss", "eval_f1"))
    assert losses == [10, 20, 30, 40]
    assert evaluated == [STEPS, 2 * STEPS, 3 * STEPS]
    assert len(read_metrics(copied)) == len(read_metrics(straight.folder))


def test_finished_run_keeps_few_checkpoints(straight: Straight) -> None:
    assert whole(straight.folder) == sorted({3 * STEPS, straight.history.kept}, reverse=True)
    size = sum(path.stat().st_size for folder in checkpoint.listed(straight.folder) for path in folder.iterdir())
    assert straight.history.checkpoints_mib == pytest.approx(size / 2**20)
    assert f"MiB in {straight.folder}; to train longer, call train(epochs=more, resume=True)" in straight.history.to_text()
    for folder in checkpoint.listed(straight.folder):
        assert {path.name for path in folder.iterdir()} == {*checkpoint.verify(folder).files, checkpoint.MANIFEST}
        assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    result = msgspec.json.decode((straight.folder / "result.json").read_bytes(), type=History)
    assert result == straight.history


# Killed


HOST = """
import json, os, random, signal, sys, time, traceback
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)
import bitsandbytes
from reviewguard import Classifier
from reviewguard.training import backends, train as training
from reviewguard.evaluation import report
from reviewguard.models import lora

backends.get_backend("finetune")
root, (preset, settings, sample, texts, seed) = Path(sys.argv[1]), json.loads(sys.argv[2])
moments = random.Random(seed)

def start(run, out):
    pid = os.fork()
    if pid == 0:
        try:
            classifier = Classifier(preset, **settings)
            report = classifier.train(sample, run_dir=run, resume="if-possible")
            np.save(out, classifier.predict_proba(texts))
            out.with_suffix(".json").write_text(report.to_json())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid

ended = lambda pid: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def wait(pid):
    if os.waitpid(pid, 0)[1]:
        sys.exit("a child failed")

def until(pid, happened):
    while not ended(pid) and not happened():
        time.sleep(0.001)

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

pid = start(root / "straight", root / "straight.npy")
until(pid, (root / "straight" / "metrics.jsonl").exists)
began = time.monotonic()
wait(pid)
seconds = time.monotonic() - began

kills = 0
while True:
    (root / "run" / "metrics.jsonl").unlink(missing_ok=True)
    pid = start(root / "run", root / "run.npy")
    if kills < 10:
        until(pid, (root / "run" / "metrics.jsonl").exists)  # training begins
        # Shorter each time, so that the second kill is in time even if a resumed run is much faster than the first one.
        time.sleep(moments.uniform(0, 0.3 * seconds / (1 + kills)))
        if not ended(pid):
            kills += kill(pid)
            continue
    wait(pid)
    break
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by fork")
@pytest.mark.parametrize("which", [pytest.param("straight", marks=pytest.mark.slow), "straight_qlora"])
def test_killed_repeatedly_at_random_times(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, sample: Path, texts: list[str]
) -> None:
    expected: Straight = request.getfixturevalue(which)
    preset = QLORA if which == "straight_qlora" else FINETUNE
    seed = secrets.randbelow(10**6)
    print("seed", seed)  # noqa: T201 - pytest shows it when a test fails
    arguments = json.dumps([preset, {**expected.settings, "loop__save_steps": 2}, str(sample), texts, seed])
    command = [sys.executable, "-c", HOST, str(tmp_path), arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) >= 2, "the test needs at least two kills during training"

    report = json.loads((tmp_path / "run.json").read_text())
    history = msgspec.convert(report["history"], History)
    assert_ends_as(tmp_path / "run", history, expected)
    assert {resumption.restored for resumption in history.resumed} <= {"full state", "from the start"}
    steps = [resumption.step for resumption in history.resumed]
    assert steps == sorted(steps), "no run resumes from an earlier step than the one before"
    assert steps[-1] > 0, "the test needs a resume from a checkpoint"
    assert whole(tmp_path / "run")[0] == 3 * STEPS
    for name in ("straight", "run"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected.probabilities, atol=1e-5)


class Crash(Exception):
    """Simulates a crash."""


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("save_steps", [0, 7])
def test_crash_at_the_end_of_an_epoch_does_not_lose_its_score(
    save_steps: int, before: bool, straight: Straight, tmp_path: Path, sample: Path, texts: list[str]
) -> None:
    """A checkpoint between the last step and the evaluation would lose the score, and possibly the best epoch."""
    run, settings = tmp_path / "run", {**straight.settings, "loop__save_steps": save_steps}
    with pytest.raises(Crash), at_checkpoint(2 * STEPS, crash, before=before):
        Classifier(FINETUNE, **settings).train(sample, run_dir=run)
    classifier, history = resume(settings, sample, run)
    assert_as_straight(classifier, history, straight, texts)
    (resumption,) = history.resumed
    assert resumption.step == (2 * STEPS if not before else 21 if save_steps else STEPS)
    assert [lost.startswith(f"checkpoint-{2 * STEPS} is incomplete") for lost in resumption.lost] == [True] * before


# The command line


def command_line(settings: dict[str, object], sample: Path, run: Path, out: Path, *more: str) -> list[str]:
    assignments = [item for key, value in settings.items() for item in ("--set", f"{key.replace('__', '.')}={value}")]
    head = [sys.executable, "-m", "reviewguard", "train", str(sample), "-p", FINETUNE]
    return [*head, "--out", str(out), "--run-dir", str(run), *assignments, *more]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_command_line_stops_on_a_signal_and_resumes(
    signum: signal.Signals, straight: Straight, sample: Path, texts: list[str], tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    environment = {**os.environ, **ENVIRONMENT}
    command = command_line(straight.settings, sample, run, out)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        wait_for(lambda: any((folder / checkpoint.MANIFEST).exists() for folder in checkpoint.listed(run)), process)
        process.send_signal(signum)
        _, message = process.communicate()
    assert process.returncode == 128 + signum, message
    assert f"error: stopped by signal {int(signum)} at step {whole(run)[0]} of {3 * STEPS}" in message
    assert "--resume" in message
    assert "Traceback" not in message
    assert not out.exists()

    if signum == signal.SIGINT:
        classifier, history = resume(straight.settings, sample, run)
    else:
        done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        classifier = Classifier.from_pretrained(out)
        history = msgspec.convert(json.loads(done.stdout)["history"], History)
    assert_as_straight(classifier, history, straight, texts)
    assert [resumption.restored for resumption in history.resumed] == ["full state"]


# Damage


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE, checkpoint.MANIFEST])
def test_damaged_checkpoint_is_skipped_and_the_previous_one_is_restored(
    name: str, straight: Straight, copied: Path, sample: Path, texts: list[str]
) -> None:
    damaged = checkpoint.path_of(copied, 21)
    flip(damaged / name)
    classifier, history = resume(straight.settings, sample, copied)
    assert_as_straight(classifier, history, straight, texts)
    (resumption,) = history.resumed
    assert (resumption.step, resumption.restored) == (20, "full state")
    (lost,) = resumption.lost
    assert lost.startswith(f"checkpoint-21 is damaged: {name}")


def test_run_that_went_back_keeps_its_own_checkpoints(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    """The damaged checkpoint is newer than those written next."""
    flip(checkpoint.path_of(copied, 21) / checkpoint.WEIGHTS)
    flip(checkpoint.path_of(copied, 20) / checkpoint.WEIGHTS)
    settings = {**straight.settings, "loop__save_steps": 2}
    interrupt(Classifier(FINETUNE, **settings), sample, copied, 16, resume=True)
    assert whole(copied) == [17, 16, STEPS]
    classifier, history = resume(straight.settings, sample, copied)
    assert_as_straight(classifier, history, straight, texts)
    assert [(resumption.step, len(resumption.lost)) for resumption in history.resumed] == [(STEPS, 2), (17, 0)]


def test_resume_without_optimizer_state(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    folder = checkpoint.listed(copied)[0]
    (folder / checkpoint.OPTIMIZER).unlink()
    _, history = resume(straight.settings, sample, copied)
    (resumption,) = history.resumed
    assert resumption.restored == "weights and schedule"
    assert resumption.step == 21
    assert resumption.lost == [f"optimizer state: {folder.name} has no optimizer.safetensors"]
    assert resumption.learning_rate is None, "the schedule continues"
    assert [epoch.step for epoch in history.epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert history.epochs[0] == straight.history.epochs[0], "earlier epochs are unchanged"
    last = checkpoint.path_of(copied, 3 * STEPS)
    drift = weight_change(last, checkpoint.path_of(straight.folder, 3 * STEPS))
    assert 1e-5 < drift < 0.1, "the weights differ slightly because the moments start over"
    assert "lost: optimizer state" in history.to_text()


def test_resume_without_trainer_state(straight: Straight, copied: Path, sample: Path) -> None:
    folder = checkpoint.listed(copied)[0]
    (folder / checkpoint.STATE).unlink()
    expected = load_file(folder / checkpoint.WEIGHTS)
    # At this learning rate, the weights do not change.
    classifier, history = resume({**straight.settings, "loop__learning_rate": 1e-12}, sample, copied)
    (resumption,) = history.resumed
    assert (resumption.step, resumption.restored) == (0, "weights only")
    assert resumption.lost == [f"optimizer, schedule and position: {folder.name} has no trainer_state.json"]
    assert [epoch.step for epoch in history.epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    weights = trained_weights(classifier)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-7, msg=name)


def test_missing_random_state_is_reported(straight: Straight, copied: Path, sample: Path) -> None:
    (checkpoint.listed(copied)[0] / "random-0.safetensors").unlink()
    _, history = resume(straight.settings, sample, copied)
    (resumption,) = history.resumed
    assert resumption.restored == "full state"
    (lost,) = resumption.lost
    assert lost.startswith("random state of 1 of 1 process(es)")


def test_run_finishes_despite_a_damaged_best_epoch(straight: Straight, copied: Path, sample: Path) -> None:
    assert checkpoint.verify(checkpoint.listed(copied)[0]).best_step == STEPS
    flip(checkpoint.path_of(copied, STEPS) / checkpoint.WEIGHTS)
    classifier, history = resume(straight.settings, sample, copied)
    (resumption,) = history.resumed
    (lost,) = resumption.lost
    assert "best epoch" in lost
    assert f"checkpoint-{STEPS} is damaged" in lost
    assert history.kept == max(history.epochs[1:], key=lambda epoch: epoch.f1 or 0).step
    assert_has_weights_of(classifier, checkpoint.path_of(copied, history.kept))


def test_run_without_usable_checkpoints_starts_over_if_possible(
    straight: Straight, copied: Path, sample: Path, texts: list[str]
) -> None:
    for folder in checkpoint.listed(copied):
        flip(folder / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match="checkpoint-14 is damaged"):
        resume(straight.settings, sample, copied)
    damaged = len(checkpoint.listed(copied))
    classifier, history = resume(straight.settings, sample, copied, resume="if-possible")
    assert_as_straight(classifier, history, straight, texts)
    (resumption,) = history.resumed
    assert (resumption.step, resumption.restored, len(resumption.lost)) == (0, "from the start", damaged)


# Another job


@pytest.mark.parametrize(
    ("change", "odd"),
    [({"lora__target_modules": ("query", "value")}, "dense"), ({"lora__r": 2}, "lora_A")],
    ids=["targets", "rank"],
)
def test_different_adapters_are_rejected_or_start_over(
    change: dict[str, object], odd: str, straight_qlora: Straight, tmp_path: Path, sample: Path, texts: list[str]
) -> None:
    run = Path(shutil.copytree(straight_qlora.folder, tmp_path / "run"))
    before = contents(run)
    settings = {**straight_qlora.settings, **change, "loop__epochs": 1}
    with pytest.raises(CheckpointError) as caught:
        resume(settings, sample, run, QLORA)
    message = str(caught.value)
    assert f"trained {straight_qlora.history.trainable:,} parameters" in message
    assert odd in message
    assert contents(run) == before

    classifier, history = resume(settings, sample, run, QLORA, resume="if-possible")
    assert f"the settings now ask for {history.trainable:,}" in message
    assert history.trainable != straight_qlora.history.trainable
    (resumption,) = history.resumed
    assert (resumption.step, resumption.restored) == (0, "from the start")
    assert all("differs" in lost for lost in resumption.lost)
    fresh = Classifier(QLORA, **settings)
    fresh.train(sample, run_dir=tmp_path / "fresh")
    np.testing.assert_allclose(classifier.predict_proba(texts), fresh.predict_proba(texts), atol=1e-5)
    assert whole(run) == [STEPS], "only checkpoints of the new run remain"


def test_adapters_do_not_resume_from_a_full_fine_tune(straight: Straight, straight_qlora: Straight, sample: Path) -> None:
    with pytest.raises(CheckpointError, match="different base weights"):
        resume(straight_qlora.settings, sample, straight.folder, QLORA)


def test_run_on_other_rows_starts_from_the_weights(straight: Straight, copied: Path, sample: Path, tmp_path: Path) -> None:
    with open(sample, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    data = ([row["text"] for row in rows[:-20]], [row["label"] for row in rows[:-20]])
    interrupt(Classifier(FINETUNE, **straight.settings), data, copied, 8, resume=True)
    assert whole(copied) == [11, 10], "checkpoints of the previous rows are removed, although their steps are later"

    _, history = resume(straight.settings, data, copied)
    first, second = history.resumed
    assert (first.step, first.restored) == (0, "weights only")
    assert first.lost == ["optimizer, schedule and position: the training rows have changed"]
    assert (second.step, second.restored, second.lost) == (11, "full state", [])
    assert len(history.epochs) == 3
    assert all(epoch.f1 is not None for epoch in history.epochs)


# Finished and unfinished runs


def test_unfinished_run_is_not_overwritten(straight: Straight, interrupted: Path, sample: Path) -> None:
    before = contents(interrupted)
    with pytest.raises(CheckpointError, match=r"the newest is checkpoint-\d+\); pass resume=True"):
        Classifier(FINETUNE, **straight.settings).train(sample, run_dir=interrupted)
    assert contents(interrupted) == before


def test_finished_run_is_overwritten(straight: Straight, tmp_path: Path, sample: Path, texts: list[str]) -> None:
    run = Path(shutil.copytree(straight.folder, tmp_path / "run"))
    classifier = Classifier(FINETUNE, **straight.settings)
    history = classifier.train(sample, run_dir=run, epochs=1).history
    assert history is not None
    assert history.resumed == []
    assert [epoch.step for epoch in history.epochs] == [STEPS]
    assert whole(run) == [STEPS], "no checkpoint of the previous run remains"
    assert [entry["step"] for entry in read_metrics(run) if "loss" in entry] == [10]


def test_finished_run_is_kept_if_the_settings_are_wrong(straight: Straight, tmp_path: Path, sample: Path) -> None:
    run = Path(shutil.copytree(straight.folder, tmp_path / "run"))
    before = contents(run)
    with pytest.raises(ConfigError, match="batch_size 16 is not a multiple"):
        Classifier(FINETUNE, **{**straight.settings, "loop__micro_batch_size": 5}).train(sample, run_dir=run)
    assert contents(run) == before


def test_resuming_a_finished_run_takes_no_step(straight: Straight, tmp_path: Path, sample: Path, texts: list[str]) -> None:
    run = Path(shutil.copytree(straight.folder, tmp_path / "run"))
    before = {name: content for name, content in contents(run).items() if name.startswith("checkpoint-")}
    classifier, history = resume(straight.settings, sample, run)
    np.testing.assert_array_equal(classifier.predict_proba(texts), straight.probabilities)
    assert history.epochs == straight.history.epochs
    assert history.kept == straight.history.kept
    assert [(resumption.step, resumption.restored) for resumption in history.resumed] == [(3 * STEPS, "full state")]
    assert {name: content for name, content in contents(run).items() if name.startswith("checkpoint-")} == before


def test_run_that_does_not_exist_cannot_be_resumed(straight: Straight, tmp_path: Path, sample: Path) -> None:
    settings = {**straight.settings, "loop__epochs": 1}
    with pytest.raises(CheckpointError, match="it contains no checkpoint"):
        resume(settings, sample, tmp_path / "run")
    _, history = resume(settings, sample, tmp_path / "run", resume="if-possible")
    assert [resumption.restored for resumption in history.resumed] == ["from the start"]


def test_heads_on_frozen_embeddings_cannot_be_resumed(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    for resume in (True, "if-possible"):
        with pytest.raises(ConfigError, match="omit resume"):
            Classifier("minilm-logreg", **tiny_settings).train(sample, run_dir=tmp_path / "run", resume=resume)
    assert not (tmp_path / "run").exists()


# More epochs


def cosine(step: int, steps: int, highest: float = 1e-3) -> float:
    """Expected learning rate at a step: 10 % warmup, then half a cosine."""
    warmup = math.ceil(0.1 * steps)
    if step < warmup:
        return highest * step / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def test_finished_run_is_extended(straight_qlora: Straight, tmp_path: Path, sample: Path) -> None:
    run = tmp_path / "run"
    classifier = Classifier(QLORA, **straight_qlora.settings)
    first = classifier.train(sample, run_dir=run, epochs=2).history
    assert first is not None
    two, four = 2 * STEPS, 4 * STEPS
    shutil.copytree(checkpoint.path_of(run, two), tmp_path / "seam")
    assert checkpoint.verify(tmp_path / "seam").learning_rate == pytest.approx(cosine(two, two), abs=1e-9)

    second = classifier.train(sample, run_dir=run, epochs=4, resume=True).history
    assert second is not None
    assert [epoch.step for epoch in second.epochs] == [STEPS, two, 3 * STEPS, four]
    assert second.epochs[:2] == first.epochs
    assert all(epoch.f1 is not None for epoch in second.epochs)
    assert second.trainable == first.trainable

    (resumption,) = second.resumed
    assert (resumption.step, resumption.restored, resumption.lost) == (two, "full state", [])
    assert resumption.learning_rate == pytest.approx((0.0, cosine(two, four)), abs=1e-9)
    assert cosine(two, four) > 5e-4
    assert "(the settings changed)" in second.to_text()
    # The logged learning rate is that of the step.
    later = {entry["step"]: entry["learning_rate"] for entry in read_metrics(run) if entry["step"] > two and "loss" in entry}
    assert later == pytest.approx({step: cosine(step - 1, four) for step in (30, 40, 50)})

    before, after = (load_file(folder / checkpoint.WEIGHTS) for folder in (tmp_path / "seam", checkpoint.path_of(run, four)))
    adapters = [name for name in before if "lora_" in name]
    assert len(adapters) == len(before) - 2, "only the adapters and the head are trained"
    for name in before:
        assert (before[name] - after[name]).abs().max() > 1e-4, f"{name} did not change"
    assert_has_weights_of(classifier, checkpoint.path_of(run, second.kept))


def test_interrupted_run_is_extended(straight: Straight, copied: Path, sample: Path) -> None:
    _, history = resume(straight.settings, sample, copied, epochs=5)
    assert [epoch.step for epoch in history.epochs] == [STEPS * number for number in range(1, 6)]
    (resumption,) = history.resumed
    assert resumption.learning_rate == pytest.approx((cosine(21, 3 * STEPS), cosine(21, 5 * STEPS)), abs=1e-9)


def test_changed_learning_rate_is_recorded_once(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    """A second interruption does not change the schedule again: it is that of five epochs."""
    unbroken = Path(shutil.copytree(copied, copied.with_name("unbroken")))
    expected, _ = resume(straight.settings, sample, unbroken, epochs=5)
    interrupt(Classifier(FINETUNE, **straight.settings), sample, copied, 45, epochs=5, resume=True)
    classifier, history = resume(straight.settings, sample, copied, epochs=5)
    assert [resumption.learning_rate is None for resumption in history.resumed] == [False, True]
    np.testing.assert_allclose(classifier.predict_proba(texts), expected.predict_proba(texts), atol=1e-5)
    assert weight_change(checkpoint.path_of(copied, 5 * STEPS), checkpoint.path_of(unbroken, 5 * STEPS)) <= 1e-5


# The best epoch and early stopping


def flipped(sample: Path) -> tuple[Any, Any]:
    """Training rows, and validation rows with wrong labels, on which the score falls during training."""
    rows = read(sample)
    texts, labels = [text or "" for text in rows.texts], [label or "" for label in rows.labels]
    wrong = ["real" if label == "fake" else "fake" for label in labels[-64:]]
    return (texts[:-64], labels[:-64]), (texts[-64:], wrong)


def test_model_has_the_weights_of_the_best_epoch(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    data, validation = flipped(sample)
    classifier = Classifier(FINETUNE, **{**tiny_settings, **LOOP, "loop__epochs": 5, "loop__learning_rate": 5e-3})
    history = classifier.train(data, validation, run_dir=tmp_path / "run").history
    assert history is not None
    scores = [epoch.f1 or 0.0 for epoch in history.epochs]
    best = history.epochs[scores.index(max(scores))]
    assert best is not history.epochs[-1], f"the test needs validation scores that get worse: {scores}"
    assert history.kept == best.step
    assert_has_weights_of(classifier, checkpoint.path_of(tmp_path / "run", best.step))
    assert weight_change(checkpoint.path_of(tmp_path / "run", best.step), checkpoint.listed(tmp_path / "run")[0]) > 1e-3


def still(settings: dict[str, object], patience: int) -> dict[str, object]:
    """Settings that do not change the weights, so that the first epoch is the best."""
    return {**settings, "loop__learning_rate": 1e-12, "loop__epochs": 6, "loop__patience": patience}


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stopping(patience: int, straight: Straight, sample: Path, tmp_path: Path) -> None:
    history = Classifier(FINETUNE, **still(straight.settings, patience)).train(sample, run_dir=tmp_path / "run").history
    assert history is not None
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, patience + 2))
    assert history.kept == STEPS


@pytest.mark.parametrize(
    ("scores", "patience", "exhausted"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.6, 0.6], 2, False),
        ([0.5, 0.6, 0.4, 0.5], 2, True),
        ([0.5, 0.4, 0.6, 0.5], 2, False),
        ([0.5, 0.4, 0.3, 0.2], 0, False),
    ],
)
def test_patience_is_counted_from_the_best_epoch(scores: list[float], patience: int, exhausted: bool) -> None:
    log = [
        entry for step, score in enumerate(scores, 1) for entry in ({"loss": 1.0, "step": step}, {"eval_f1": score, "step": step})
    ]
    assert Guard(patience, 0).is_exhausted(TrainerState(log_history=log)) is exhausted


def test_early_stopping_survives_a_resume(straight: Straight, sample: Path, tmp_path: Path) -> None:
    """Two epochs without a better score, one before the interruption and one after."""
    run, settings = tmp_path / "run", still(straight.settings, 2)
    interrupt(Classifier(FINETUNE, **settings), sample, run, 2 * STEPS + 1)
    _, history = resume(settings, sample, run)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.kept == STEPS
    assert len(history.resumed) == 1


def test_run_that_stopped_early_is_finished(straight: Straight, sample: Path, tmp_path: Path, texts: list[str]) -> None:
    run, settings = tmp_path / "run", still(straight.settings, 1)
    before = Classifier(FINETUNE, **settings)
    first = before.train(sample, run_dir=run).history
    classifier, second = resume(settings, sample, run)
    assert first is not None
    assert second.epochs == first.epochs, "a resume takes no further step"
    np.testing.assert_array_equal(classifier.predict_proba(texts), before.predict_proba(texts))
    _, third = resume({**settings, "loop__patience": 3}, sample, run)
    assert [epoch.epoch for epoch in third.epochs] == [1, 2, 3, 4], "with more patience, training continues"


# Another number of processes


def test_run_of_two_processes_resumes_in_one(straight: Straight, copied: Path, sample: Path, texts: list[str]) -> None:
    folder = checkpoint.listed(copied)[0]
    manifest = checkpoint.verify(folder)
    (folder / checkpoint.MANIFEST).unlink()
    shutil.copyfile(folder / "random-0.safetensors", folder / "random-1.safetensors")
    checkpoint.seal(folder, msgspec.structs.replace(manifest, processes=2))
    classifier, history = resume(straight.settings, sample, copied)
    assert_as_straight(classifier, history, straight, texts)
    assert (history.resumed[0].restored, history.processes) == ("full state", 1)


@pytest.mark.slow
def test_real_run_of_two_processes_resumes_in_one(
    tiny_encoder: Path, straight: Straight, sample: Path, tmp_path: Path, texts: list[str]
) -> None:
    """Without dropout, which differs between processes, the result is that of a run in one process."""
    encoder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))
    settings = {**straight.settings, "encoder__repo": str(encoder), "loop__dropout": 0.0, "loop__epochs": 2}
    command = command_line(settings, sample, tmp_path / "two", tmp_path / "model")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run([*launcher, *command[1:]], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    manifest = checkpoint.verify(checkpoint.listed(tmp_path / "two")[0])
    assert manifest.processes == 2
    assert {"random-0.safetensors", "random-1.safetensors"} <= manifest.files.keys()
    assert manifest.job.order == "seed 42, 16 rows a step"

    Classifier(FINETUNE, **settings).train(sample, run_dir=tmp_path / "one")
    ended = [resume(settings, sample, tmp_path / name, epochs=3) for name in ("two", "one")]
    np.testing.assert_allclose(ended[0][0].predict_proba(texts), ended[1][0].predict_proba(texts), atol=1e-4)
    assert weight_change(*(checkpoint.path_of(tmp_path / name, 3 * STEPS) for name in ("two", "one"))) < 1e-4
    assert [history.processes for _, history in ended] == [1, 1]
    assert ended[0][1].resumed == ended[1][1].resumed
    assert ended[0][1].resumed[0].restored == "full state"


def test_checkpoint_contains_the_trained_parameters(straight_qlora: Straight) -> None:
    manifest = checkpoint.verify(checkpoint.listed(straight_qlora.folder)[0])
    tensors = load_file(checkpoint.listed(straight_qlora.folder)[0] / checkpoint.WEIGHTS)
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == manifest.job.trainable
    assert sum(tensor.numel() for tensor in tensors.values()) == straight_qlora.history.trainable


def test_loop_checkpoints_setting(straight: Straight, tmp_path: Path, sample: Path) -> None:
    for keep, left in (("none", 0), ("all", 3)):
        classifier = Classifier("minilm-finetune", **{**straight.settings, "loop__save_steps": 0, "loop__checkpoints": keep})
        report = classifier.train(sample, run_dir=tmp_path / keep)
        assert len(whole(tmp_path / keep)) == left
        assert report.history is not None
        assert (report.history.checkpoints_mib > 0) == bool(left)
        assert ("checkpoints:" in report.history.to_text()) == bool(left)


def test_unwritable_folder_is_reported(straight: Straight, tmp_path: Path, sample: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        TrainingError, match=r"training cannot write to the run's folder .*file: .*choose another folder with run_dir"
    ):
        Classifier("minilm-finetune", **straight.settings).train(sample, run_dir=tmp_path / "file")
