"""Runs of an experiment: each in a process of its own, kept once it is finished, never in the way of the others."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import msgspec
import numpy as np
import safetensors.numpy
import threadpoolctl
from safetensors import SafetensorError
from tqdm import tqdm

from reviewguard import files
from reviewguard.data.clean import CleaningReport
from reviewguard.data.reviews import Reviews
from reviewguard.errors import DataError, TrainingInterrupted
from reviewguard.experiments.rows import digest
from reviewguard.metrics import Scores
from reviewguard.nn.history import History
from reviewguard.runtime.cores import available_cores
from reviewguard.scoring import Floats

RESULTS: Final = "results.jsonl"
#: Stands for the baseline of reports where a preset or a backend is named.
BASELINE: Final = "tfidf"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does.

    Attributes:
        name: Of the contestant.
        trained_on: Name of the rows that it is trained on.
        recipe: Every setting, the seed included; of the backend "tfidf", which is the baseline, only those of the data count.
        max_fpr: False-positive rate that the operating point is set for, on the validation rows.
    """

    name: str
    trained_on: str
    recipe: dict[str, Any]
    max_fpr: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job, and the rows for it: what is scored has a name each."""

    job: Job
    train: Reviews
    validation: Reviews
    scored: Mapping[str, Reviews]

    @property
    def key(self) -> str:
        """What decides whether a run was done already: settings, rows and the version of the library."""
        rows = digest({"train": self.train, "validation": self.validation, **self.scored})
        return hashlib.sha256(msgspec.json.encode([version("reviewguard"), self.job, rows], order="deterministic")).hexdigest()[
            :16
        ]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cost.

    Attributes:
        seconds: Training. Heads on frozen vectors share a cache: the first to need the vectors pays for them.
        peak_memory_mib: Of the whole process; None where the system does not tell.
        gpu_memory_mib: Most that tensors took on the GPU at once; None without one.
        model_mib: Size of the weights.
        reviews_per_second: From text to logits, in torch on the same machine, on scored rows.
        device: What it ran on.
    """

    seconds: float
    peak_memory_mib: float | None
    gpu_memory_mib: float | None
    model_mib: float
    reviews_per_second: float
    device: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    Attributes:
        key: See `Task.key`.
        job: What it did.
        outcome: A failed run is tried again next time.
        error: Why it failed.
        rows: Rows that were trained on, after cleaning.
        classes: In the order of the logits.
        positive: The class that binary metrics are about; None with more than two.
        cleaning: What was dropped before; None for the baseline, which takes every row.
        scores: By the name of the rows: of the most probable class.
        at_point: The same, at the operating point; empty with more than two classes.
        notes: Warnings that came up.
        cost: See `Cost`.
        history: Of fine-tuning.
    """

    key: str
    job: Job
    outcome: Literal["done", "failed"]
    error: str = ""
    rows: int = 0
    classes: list[str] = []
    positive: str | None = None
    cleaning: CleaningReport | None = None
    scores: dict[str, Scores] = {}
    at_point: dict[str, Scores] = {}
    notes: list[str] = []
    cost: Cost | None = None
    history: History | None = None


def run_all(tasks: Sequence[Task], folder: Path, jobs: int = 1) -> list[Result]:
    """Run what an earlier call did not finish; returns one result a task, in their order.

    Args:
        tasks: The runs.
        folder: Keeps `results.jsonl`, the scores, and the checkpoints of runs under way. One call at a time.
        jobs: Runs side by side.

    Raises:
        TrainingInterrupted: After Ctrl-C or SIGTERM; what was finished is kept, and a fine-tuning run has its checkpoint.
    """
    from reviewguard.experiments.execute import execute

    folder.mkdir(parents=True, exist_ok=True)
    keys = [task.key for task in tasks]
    with files.exclusive(folder / RESULTS):
        known = {result.key: result for result in read_results(folder)}
        pending = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known or known[key].outcome == "failed"}
        with (
            tqdm(total=len(pending), desc="runs", unit=" runs", disable=None) as bar,
            ThreadPoolExecutor(jobs) as pool,
            _ending_children(pool),
        ):
            futures = [pool.submit(_apart, execute, task, key, folder, jobs) for key, task in pending.items()]
            for future in as_completed(futures):
                result = future.result()
                known[result.key] = result
                lines = b"".join(msgspec.json.encode(one) + b"\n" for one in known.values())
                files.replace(folder / RESULTS, lines)
                bar.update()
                bar.set_postfix_str(f"{result.job.name}: {result.outcome}")
    return [known[key] for key in keys]


def read_results(folder: Path) -> list[Result]:
    """What `results.jsonl` holds; nothing where there is none.

    Raises:
        DataError: If it is malformed.
    """
    path = folder / RESULTS
    try:
        return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()] if path.exists() else []
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is malformed: {error}; move it away to begin anew") from error


def logits_of(result: Result, folder: Path) -> dict[str, Floats]:
    """Logits of a finished run, float32 (rows, classes), by the name of the rows.

    Raises:
        DataError: If the file is not there, or malformed.
    """
    path = scores_file(folder, result.key)
    try:
        logits = safetensors.numpy.load(path.read_bytes())
        if {name: values.shape for name, values in logits.items()} != {
            name: (np.sum(scores.confusion), len(result.classes)) for name, scores in result.scores.items()
        }:
            raise ValueError("other rows")
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder / RESULTS} to run everything again") from error
    return logits


def scores_file(folder: Path, key: str) -> Path:
    """Where the logits of a run are."""
    return folder / "scores" / f"{key}.safetensors"


def _apart(execute: Any, task: Task, key: str, folder: Path, jobs: int) -> Result:
    """A fresh process for one run: its peak memory is its own, and so is its death."""
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=_share, initargs=(jobs,)) as pool:
            result: Result = pool.submit(execute, task, key, folder).result()
    except Exception as error:  # whatever it is, the other runs go on, and the report shows it
        return Result(key=key, job=task.job, outcome="failed", error=f"{type(error).__name__}: {error}")
    return result


def _share(jobs: int) -> None:
    """Of several processes side by side, each takes its part of the cores, and none overwrites the others' progress bars."""
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, available_cores() // jobs))
        threadpoolctl.threadpool_limits(max(1, available_cores() // jobs))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def _ending_children(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Hand a signal on to the runs, which save a checkpoint, and begin no other."""
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    except KeyboardInterrupt:
        raise TrainingInterrupted(
            "stopped by a signal; finished runs are kept: the same call goes on", came[0] if came else signal.SIGINT
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
