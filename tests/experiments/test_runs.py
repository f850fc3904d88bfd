"""Runs in separate processes: finished runs are kept, failed runs are retried, and no run affects another."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import safetensors.numpy

from reviewguard.config import DataConfig
from reviewguard.data.reviews import read
from reviewguard.errors import DataError, TrainingInterrupted
from reviewguard.experiments import runs
from reviewguard.experiments.candidates import make_jobs, recipe_of
from reviewguard.experiments.comparison import require_some
from reviewguard.experiments.jobs import Result, Task
from reviewguard.experiments.results import RESULTS, logits_of, read_results, scores_file
from reviewguard.experiments.rows import Source, divide_source
from reviewguard.experiments.runs import run_all


class Drill(NamedTuple):
    """A call whose first worker was killed and in which another run had no encoder, and a second call."""

    folder: Path
    tasks: list[Task]  # two valid ones, one of whose workers was killed, and one without an encoder
    killed: Result
    well: Result
    absent: Result
    before: bytes
    stamps: dict[str, int]
    again: list[Result]  # of the last task, whose encoder exists by then, and of the finished one


@pytest.fixture(scope="module")
def source(sample: Path) -> Source:
    return divide_source(read(sample), DataConfig(), "sample")


@contextlib.contextmanager
def killing_the_first_worker() -> Iterator[None]:
    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
                        return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


@pytest.fixture(scope="module")
def drill(
    source: Source, tiny_encoder: Path, tiny_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Drill:
    root = tmp_path_factory.mktemp("drill")
    folder, absent = root / "runs", root / "encoder"
    tfidf = recipe_of("tfidf", {})
    recipes = {
        "one": tfidf,
        "other": tfidf,
        "absent": recipe_of("minilm-logreg", {**tiny_settings, "encoder__repo": str(absent)}),
    }
    tasks = [
        Task(job=job, train=source.train, validation=source.validation, scored={"scored": source.scored})
        for job in make_jobs(recipes, [1], 0.05, "sample")
    ]
    with killing_the_first_worker():
        *both, lacking = run_all(tasks, folder, jobs=2)
    killed, well = sorted(both, key=lambda one: one.outcome, reverse=True)
    before, stamps = (folder / RESULTS).read_bytes(), _stamps(folder)
    shutil.copytree(tiny_encoder, absent)
    wanted = [tasks[2], next(task for task in tasks if task.key == well.key)]
    return Drill(folder, tasks, killed, well, lacking, before, stamps, run_all(wanted, folder))


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "scores").iterdir()}


def test_killed_and_failed_runs_do_not_stop_the_others(drill: Drill) -> None:
    killed, well, absent = drill.killed, drill.well, drill.absent
    assert [one.outcome for one in (killed, well, absent)] == ["failed", "done", "failed"]
    assert killed.error.startswith("BrokenProcessPool: ")
    assert absent.error.startswith("EncoderError: ")
    assert str(drill.folder.parent / "encoder") in absent.error
    for one in (killed, well, absent):
        assert one.job == next(task.job for task in drill.tasks if task.key == one.key)
    assert list(drill.stamps) == [scores_file(drill.folder, well.key).name], "only finished runs have scores"


def test_failed_runs_are_retried_and_finished_ones_are_not(drill: Drill) -> None:
    assert [one.outcome for one in drill.again] == ["done", "done"]
    assert (drill.again[0].key, drill.again[1]) == (drill.absent.key, drill.well)
    after = _stamps(drill.folder)
    assert after.keys() > drill.stamps.keys()
    assert {name: after[name] for name in drill.stamps} == drill.stamps
    lines = {one.key: one for one in read_results(drill.folder)}
    assert lines == {one.key: one for one in (drill.killed, *drill.again)}, "one line per run, the newest"


def test_no_process_is_started_if_all_runs_are_finished(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("reviewguard.experiments.runs.ProcessPoolExecutor", none)
    before, stamps = (drill.folder / RESULTS).read_bytes(), _stamps(drill.folder)
    tasks = [next(task for task in drill.tasks if task.key == one.key) for one in drill.again]
    assert run_all(tasks, drill.folder) == drill.again
    assert run_all(tasks[::-1], drill.folder) == drill.again[::-1], "in the order of the tasks"
    assert (drill.folder / RESULTS).read_bytes() == before
    assert _stamps(drill.folder) == stamps


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["while runs are handed out", "while they are waited for"])
def test_a_signal_while_a_worker_starts_ends_that_run_too(
    pause: float, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is still starting when the signal arrives must not finish its run, which may take hours."""
    task = Task(
        job=make_jobs({"a": recipe_of("tfidf", {})}, [1], 0.05, "sample")[0],
        train=source.train,
        validation=source.validation,
        scored={"scored": source.scored},
    )
    start = runs._apart

    def signalled(*arguments: Any) -> Result:
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # the main thread handles it
        return start(*arguments)

    monkeypatch.setattr(runs, "_apart", signalled)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="finished runs are kept, and the same call resumes") as stopped:
        run_all([task], tmp_path)
    assert stopped.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "scores").exists(), "the run was finished"
    assert read_results(tmp_path) == []


def test_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []
    with pytest.raises(DataError, match="every run failed; a: E: x"):
        require_some([Result(key="k", job=_job("a"), outcome="failed", error="E: x")])


def _job(name: str):
    return make_jobs({name: {"backend": "tfidf"}}, [1], 0.1, "x")[0]


@pytest.mark.parametrize(
    "damage",
    [b"{", b"\n", b'{"key": "a"}\n', b"[]\n", b'{"key": "\xff"}\n', b"\x00\n", "half"],
)
def test_malformed_results_are_refused(damage: bytes | str, drill: Drill, tmp_path: Path) -> None:
    content = drill.before[:-40] if damage == "half" else drill.before + damage
    (tmp_path / RESULTS).write_bytes(content)
    with pytest.raises(DataError, match=r"results\.jsonl is malformed: .*; move it away to start over"):
        run_all(drill.tasks, tmp_path)
    assert (tmp_path / RESULTS).read_bytes() == content


def test_logits_of_a_run(drill: Drill, source: Source) -> None:
    (logits,) = logits_of(drill.well, drill.folder).values()
    assert logits.shape == (len(source.scored), 2)
    assert logits.dtype == np.float32


def test_damaged_logits_are_refused(drill: Drill, tmp_path: Path) -> None:
    result = drill.well
    whole = scores_file(drill.folder, result.key).read_bytes()
    logits = safetensors.numpy.load(whole)["scored"]
    path = scores_file(tmp_path, result.key)
    with pytest.raises(DataError, match=r"cannot be read.*; remove .*results\.jsonl to run everything again"):
        logits_of(result, tmp_path)
    path.parent.mkdir()
    others = [{"scored": logits[:-1]}, {"scored": logits[:, :1]}, {"other": logits}, {"scored": logits, "other": logits}, {}]
    for content in (b"", whole[:-1], whole[:20], b"\xff" * 100, *map(safetensors.numpy.save, others)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            logits_of(result, tmp_path)
    path.write_bytes(whole)
    assert (logits_of(result, tmp_path)["scored"] == logits).all()


def test_keys_distinguish_runs(source: Source) -> None:
    def task(**changes: object) -> Task:
        (job,) = make_jobs({"a": recipe_of("minilm-logreg", {})}, [1], 0.1, "x")
        made = Task(job=job, train=source.train, validation=source.validation, scored={"one": source.scored})
        return replace(made, **changes)

    other_seed = make_jobs({"a": recipe_of("minilm-logreg", {})}, [2], 0.1, "x")[0]
    other_setting = make_jobs({"a": recipe_of("minilm-logreg", {"C": 3})}, [1], 0.1, "x")[0]
    other_rate = make_jobs({"a": recipe_of("minilm-logreg", {})}, [1], 0.2, "x")[0]
    fewer = source.train.take(range(1, len(source.train)))
    tasks = [
        task(),
        *(task(job=job) for job in (other_seed, other_setting, other_rate)),
        task(train=fewer),
        task(train=source.validation, validation=source.train),
        task(scored={"other": source.scored}),
        task(scored={"one": source.validation}),
    ]
    assert len({one.key for one in tasks}) == len(tasks)
    assert task().key == task().key
