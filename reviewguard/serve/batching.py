"""Micro-batching: the texts of concurrent requests are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Prediction
from reviewguard.serve.settings import Limits


class OverloadedError(Exception):
    """Too many texts are waiting."""


class ClosedError(Exception):
    """The server is stopping and accepts nothing more."""


@dataclass(frozen=True, eq=False)  # found by identity: comparing texts would take milliseconds in a long queue
class _Job:
    texts: list[str]
    model: TrainedModel
    answer: asyncio.Future[list[Prediction]]

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.texts), default=0)

    @cached_property
    def characters(self) -> int:
        return sum(map(len, self.texts))


class Batcher:
    """Computes the texts of waiting requests in one call of a model, in a thread of its own.

    While a batch is computed, further requests wait and form the next ones, so batches grow with the load and a lone request is
    computed at once. Requests for different models are computed separately.

    Attributes:
        waiting: Number of texts that wait, without those that are being computed.
    """

    def __init__(self, limits: Limits, most_characters: int, observe: Callable[[int], None] = lambda texts: None) -> None:
        """Create the batcher; `run` must run for as long as it is used.

        Args:
            limits: Limits of the server.
            most_characters: Number of characters after which a batch is full.
            observe: Called with the number of texts of each batch.
        """
        self.waiting = 0
        self._limits = limits
        self._most_characters = most_characters
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reviewguard")

    async def predictions(self, texts: list[str], model: TrainedModel) -> list[Prediction]:
        """Predict texts with a model. If the caller is cancelled while they wait, they are not computed.

        Raises:
            ClosedError: If the server is stopping.
            OverloadedError: If more texts would wait than allowed.
        """
        if self._closed:
            raise ClosedError
        # A request that alone exceeds the queue is accepted when nothing waits.
        if self.waiting and self.waiting + len(texts) > self._limits.queue:
            raise OverloadedError
        job = _Job(texts, model, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(texts)
        self._arrived.set()
        return await job.answer

    async def run(self) -> None:
        """Compute batches until `close` is called and nothing waits."""
        busy = False
        while True:
            if not self._jobs:
                if self._closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            is_full = sum(job.characters for job in self._jobs) >= self._most_characters
            if busy and self._limits.wait_seconds and not is_full and not self._closed:
                await asyncio.sleep(self._limits.wait_seconds)
            jobs = self._next()
            busy = len(jobs) > 1
            if jobs:
                await self._compute(jobs)

    def close(self) -> None:
        """Accept nothing more; `run` ends when everything accepted is answered."""
        self._closed = True
        self._arrived.set()

    def _next(self) -> list[_Job]:
        """Take the oldest waiting job, and those of the most similar length until the batch is full. Cancelled jobs are dropped.

        Texts of similar length need little padding, and the oldest job is always next, so none waits for long.
        """
        for job in [job for job in self._jobs if job.answer.cancelled()]:
            self._take(job)
        if not self._jobs:
            return []
        oldest = self._jobs[0]
        batch: list[_Job] = []
        characters = 0
        fitting = [job for job in self._jobs if job.model is oldest.model]
        for job in sorted(fitting, key=lambda job: abs(job.longest - oldest.longest)):
            batch.append(job)
            characters += job.characters
            if characters >= self._most_characters:
                break
        for job in batch:
            self._take(job)
        return batch

    def _take(self, job: _Job) -> None:
        self._jobs.remove(job)
        self.waiting -= len(job.texts)

    async def _compute(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        self._observe(len(texts))
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, jobs[0].model.predictions, texts)
        except Exception as error:
            if len(jobs) == 1:
                if not jobs[0].answer.cancelled():
                    jobs[0].answer.set_exception(error)
                return
            # One request's texts must not fail the others.
            for job in jobs:
                await self._compute([job])
            return
        for job in jobs:
            mine, found = found[: len(job.texts)], found[len(job.texts) :]
            if not job.answer.cancelled():
                job.answer.set_result(mine)
