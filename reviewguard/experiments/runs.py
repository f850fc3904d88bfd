"""Runs of an experiment: each in its own process, kept once finished, isolated from the failures of others."""

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

#: Seconds between checks for a signal.
_POLL: Final = 0.1


def run_all(tasks: Sequence[Task], folder: Path, jobs: int = 1) -> list[Result]:
    """Run the tasks that no earlier call finished; returns one result per task, in the order of the tasks.

    Args:
        tasks: The runs.
        folder: Folder for `results.jsonl`, the scores, and checkpoints of active runs; created if missing. Only one call may
            use it at a time.
        jobs: Number of parallel runs.

    Raises:
        TrainingInterrupted: After Ctrl-C or SIGTERM. Finished runs are kept, and fine-tuning runs have a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [task.key for task in tasks]
    with files.exclusive(folder / RESULTS):
        known = {result.key: result for result in read_results(folder)}
        pending = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known or known[key].outcome == "failed"}
        stopping, signals_received = threading.Event(), list[int]()
        with (
            tqdm(total=len(pending), desc="runs", unit=" runs", disable=None) as bar,
            ThreadPoolExecutor(jobs) as pool,
            signals.handled(lambda number, _: signals_received.append(number)),
        ):
            futures = [pool.submit(_apart, task, key, folder, jobs, stopping) for key, task in pending.items()]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                if signals_received:
                    stopping.set()
                    _end(futures)
                    raise TrainingInterrupted(
                        "stopped by a signal; finished runs are kept, and the same call resumes", signals_received[0]
                    )
                for result in (future.result() for future in done):
                    known[result.key] = result
                    lines = b"".join(msgspec.json.encode(record) + b"\n" for record in known.values())
                    files.replace(folder / RESULTS, lines)
                    bar.update()
                    bar.set_postfix_str(f"{result.job.name}: {result.outcome}")
    return [known[key] for key in keys]


def _apart(task: Task, key: str, folder: Path, jobs: int, stopping: threading.Event) -> Result:
    """Execute one run in a fresh process, which isolates its peak memory and its crashes."""
    spawn = multiprocessing.get_context("spawn")
    try:
        if stopping.is_set():
            raise InterruptedError("stopped before it started")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=_share, initargs=(jobs,)) as pool:
            result: Result = pool.submit(execute, task, key, folder).result()
    except Exception as error:  # of any kind: the other runs continue, and the report shows it
        return Result(key=key, job=task.job, outcome="failed", error=f"{type(error).__name__}: {error}")
    return result


def _share(jobs: int) -> None:
    """Share the cores among parallel processes, and silence their progress bars."""
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, available_cores() // jobs))
        threadpoolctl.threadpool_limits(max(1, available_cores() // jobs))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _end(futures: Sequence[Future[Result]]) -> None:
    """Terminate each run once, so that fine-tuning saves a checkpoint. Poll, because a process may still be starting."""
    signalled = set()
    for future in futures:
        future.cancel()
    while not all(future.done() for future in futures):
        for child in multiprocessing.active_children():
            if child.pid not in signalled:
                signalled.add(child.pid)
                child.terminate()
        time.sleep(_POLL)
