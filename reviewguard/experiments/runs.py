"""Runs of an experiment: each in a process of its own, kept once it is finished, never in the way of the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import msgspec
import threadpoolctl
from tqdm import tqdm

from reviewguard import files
from reviewguard.errors import TrainingInterrupted
from reviewguard.experiments.execute import execute
from reviewguard.experiments.jobs import Result, Task
from reviewguard.experiments.results import RESULTS, read_results
from reviewguard.inference.engines.cores import available_cores
from reviewguard.training import signals

#: Seconds between looks at whether a signal came.
_POLL: Final = 0.1


def run_all(tasks: Sequence[Task], folder: Path, jobs: int = 1) -> list[Result]:
    """Run what an earlier call did not finish; returns one result a task, in their order.

    Args:
        tasks: The runs.
        folder: Made if it is not there. Keeps `results.jsonl`, the scores, and checkpoints of runs under way. One call at a time.
        jobs: Runs side by side.

    Raises:
        TrainingInterrupted: After Ctrl-C or SIGTERM; what was finished is kept, and a fine-tuning run has its checkpoint.
    """
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
            futures = [pool.submit(_apart, task, key, folder, jobs, stopping) for key, task in pending.items()]
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


def _apart(task: Task, key: str, folder: Path, jobs: int, stopping: threading.Event) -> Result:
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
