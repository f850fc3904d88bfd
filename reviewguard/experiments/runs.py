"""Runs of an experiment: each in a process of its own, kept once it is finished, never in the way of the others."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import safetensors.numpy
import threadpoolctl
from tqdm import tqdm

from reviewguard import files, signals
from reviewguard.data.clean import CleaningReport
from reviewguard.data.reviews import Reviews
from reviewguard.errors import ConfigError, DataError, TrainingInterrupted
from reviewguard.experiments.rows import digest
from reviewguard.metrics import Scores
from reviewguard.nn.history import History
from reviewguard.runtime.cores import available_cores
from reviewguard.scoring import Floats

RESULTS: Final = "results.jsonl"
#: Stands for the baseline of reports where a preset or a backend is named.
BASELINE: Final = "tfidf"
#: Seconds between looks at whether a signal came.
_POLL: Final = 0.1


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
        packages: Versions of what it ran with.
    """

    seconds: float
    peak_memory_mib: float | None
    gpu_memory_mib: float | None
    model_mib: float
    reviews_per_second: float
    device: str
    packages: dict[str, str] = {}


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
        logits_sha256: Of the file with the logits of the scored rows.
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
    logits_sha256: str = ""


def run_all(tasks: Sequence[Task], folder: Path, jobs: int = 1) -> list[Result]:
    """Run what an earlier call did not finish; returns one result a task, in their order.

    Args:
        tasks: The runs.
        folder: Made if it is not there. Keeps `results.jsonl`, the scores, and checkpoints of runs under way. One call at a time.
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
        stopping, came = threading.Event(), list[int]()
        with (
            tqdm(total=len(pending), desc="runs", unit=" runs", disable=None) as bar,
            ThreadPoolExecutor(jobs) as pool,
            signals.handled(lambda number, _: came.append(number)),
        ):
            futures = [pool.submit(_apart, execute, task, key, folder, jobs, stopping) for key, task in pending.items()]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                if came:
                    stopping.set()
                    _end(futures)
                    raise TrainingInterrupted("stopped by a signal; finished runs are kept: the same call goes on", came[0])
                for result in (future.result() for future in done):
                    known[result.key] = result
                    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in known.values())
                    files.replace(folder / RESULTS, lines)
                    bar.update()
                    bar.set_postfix_str(f"{result.job.name}: {result.outcome}")
    return [known[key] for key in keys]


def folder_at(out: str | os.PathLike[str]) -> Path:
    """The folder of an experiment; it need not be there.

    Raises:
        ConfigError: If there is something else in its place.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, and an experiment needs a folder; name another with --out")
    return folder


def read_results(folder: Path) -> list[Result]:
    """What `results.jsonl` holds; nothing where there is none.

    Raises:
        DataError: If it is malformed.
    """
    path = folder / RESULTS
    try:
        return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()] if path.exists() else []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is malformed: {error}; move it away to begin anew") from error


def logits_of(result: Result, folder: Path) -> dict[str, Floats]:
    """Logits of a finished run, float32 (rows, classes), by the name of the rows.

    Raises:
        DataError: If the file is not there, or malformed.
    """
    path = scores_file(folder, result.key)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != result.logits_sha256:
            raise ValueError("it is not what was written")
        return safetensors.numpy.load(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder / RESULTS} to run everything again") from error


def scores_file(folder: Path, key: str) -> Path:
    """Where the logits of a run are."""
    return folder / "scores" / f"{key}.safetensors"


def _apart(execute: Any, task: Task, key: str, folder: Path, jobs: int, stopping: threading.Event) -> Result:
    """A fresh process for one run: its peak memory is its own, and so is its death."""
    spawn = multiprocessing.get_context("spawn")
    try:
        if stopping.is_set():
            raise InterruptedError("stopped before it began")
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


def _end(futures: Sequence[Future[Result]]) -> None:
    """Hand a signal on to the runs, each once: a fine-tuning run saves a checkpoint. One may only just be starting."""
    told = set()
    for future in futures:
        future.cancel()
    while not all(future.done() for future in futures):
        for child in multiprocessing.active_children():
            if child.pid not in told:
                told.add(child.pid)
                child.terminate()
        time.sleep(_POLL)
