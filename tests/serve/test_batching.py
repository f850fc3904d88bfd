"""Micro-batching, without HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Prediction
from reviewguard.serve.batching import Batcher, ClosedError, OverloadedError
from reviewguard.serve.settings import Limits


class Slow:
    """Stands for a model: each batch takes a while, and "bad" fails."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.batches: list[list[str]] = []
        self.seconds = seconds
        self.started = threading.Event()

    def predictions(self, texts: Sequence[str]) -> list[Prediction]:
        self.batches.append(list(texts))
        self.started.set()
        time.sleep(self.seconds)
        if "bad" in texts:
            raise ValueError("a bad text")
        return [Prediction(text, 1.0, text, truncated=False, out_of_distribution=False) for text in texts]


def run(
    scenario: Callable[[Callable[[list[str]], Awaitable[list[Prediction]]], Batcher], Awaitable[None]],
    model: Slow,
    **limits: Any,
) -> None:
    """Run a scenario with a batcher, and close it in an orderly way."""

    async def whole() -> None:
        batcher = Batcher(Limits(**limits), most_characters=100)
        running = asyncio.create_task(batcher.run())
        async with asyncio.timeout(20):
            await scenario(lambda texts: batcher.predictions(texts, cast(TrainedModel, model)), batcher)
            batcher.close()
            await running

    asyncio.run(whole())


def labels(predictions: list[Prediction]) -> list[str | None]:
    return [one.label for one in predictions]


def test_waiting_requests_are_computed_together_and_answered_separately() -> None:
    model = Slow()

    async def scenario(predict: Any, batcher: Batcher) -> None:
        answers = await asyncio.gather(*(predict([f"{number}a", f"{number}b"]) for number in range(10)))
        assert [labels(answer) for answer in answers] == [[f"{number}a", f"{number}b"] for number in range(10)]
        assert batcher.waiting == 0

    run(scenario, model)
    assert sorted(text for batch in model.batches for text in batch) == sorted(f"{n}{x}" for n in range(10) for x in "ab")
    assert len(model.batches) <= 2


def test_a_batch_is_full_after_so_many_characters() -> None:
    model = Slow()

    async def scenario(predict: Any, _: Batcher) -> None:
        await asyncio.gather(*(predict(["x" * 60]) for _ in range(6)))

    run(scenario, model, wait_seconds=0)
    assert max(map(len, model.batches)) == 2, "the second one passes 100 characters"


def test_a_batch_has_the_oldest_request_and_those_of_similar_length() -> None:
    model = Slow()

    async def scenario(predict: Any, _: Batcher) -> None:
        first = asyncio.ensure_future(predict(["first"]))
        await asyncio.to_thread(model.started.wait)
        lengths = [60, 5, 80, 55, 6, 58]
        await asyncio.gather(*(predict(["x" * length]) for length in lengths), first)

    run(scenario, model)
    assert [sorted(map(len, batch)) for batch in model.batches[1:]] == [[58, 60], [5, 6, 55, 80]]


def test_a_lone_request_does_not_wait() -> None:
    model = Slow(0)

    async def scenario(predict: Any, _: Batcher) -> None:
        started = time.perf_counter()
        for _ in range(5):
            await predict(["a"])
        assert time.perf_counter() - started < 1

    run(scenario, model, wait_seconds=1)


def test_requests_that_were_cancelled_are_not_computed() -> None:
    model = Slow(0.1)

    async def scenario(predict: Any, batcher: Batcher) -> None:
        first = asyncio.ensure_future(predict(["first"]))
        await asyncio.to_thread(model.started.wait)
        second, third = asyncio.ensure_future(predict(["second"])), asyncio.ensure_future(predict(["third"]))
        await asyncio.sleep(0.01)
        second.cancel()
        assert (labels(await first), labels(await third)) == (["first"], ["third"])
        assert batcher.waiting == 0

    run(scenario, model)
    assert model.batches == [["first"], ["third"]]


def test_a_full_queue_refuses() -> None:
    model = Slow(0.1)

    async def scenario(predict: Any, batcher: Batcher) -> None:
        first = asyncio.ensure_future(predict(["first"] * 9))  # more than the queue, but nothing waits
        await asyncio.to_thread(model.started.wait)
        waiting = asyncio.ensure_future(predict(["a", "b", "c"]))
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError):
            await predict(["d", "e"])
        assert labels(await predict(["f"])) == ["f"]
        assert (len(await first), len(await waiting)) == (9, 3)

    run(scenario, model, queue=4)


def test_a_failure_concerns_only_its_own_request() -> None:
    model = Slow()

    async def scenario(predict: Any, _: Batcher) -> None:
        answers = await asyncio.gather(predict(["a"]), predict(["bad"]), predict(["b"]), return_exceptions=True)
        assert isinstance(answers[1], ValueError)
        assert [labels(answers[0]), labels(answers[2])] == [["a"], ["b"]]

    run(scenario, model)


def test_closing_answers_what_was_accepted() -> None:
    model = Slow(0.1)

    async def scenario(predict: Any, batcher: Batcher) -> None:
        accepted = [asyncio.ensure_future(predict([str(number)])) for number in range(4)]
        await asyncio.sleep(0.01)
        batcher.close()
        with pytest.raises(ClosedError):
            await predict(["late"])
        assert [labels(await one) for one in accepted] == [["0"], ["1"], ["2"], ["3"]]

    run(scenario, model)


def test_models_are_not_mixed() -> None:
    one, other = Slow(), Slow()

    async def scenario(predict: Any, batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.predictions([str(n)], cast(TrainedModel, (one, other)[n % 2])) for n in range(6)))

    run(scenario, one)
    assert sorted(text for batch in one.batches for text in batch) == ["0", "2", "4"]
    assert sorted(text for batch in other.batches for text in batch) == ["1", "3", "5"]
