"""The two arms of an A/B test: which model answers a text, and what the other one does."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from reviewguard.inference.decision_log import DecisionLog, Entry, hashed
from reviewguard.inference.scoring import Prediction
from reviewguard.serve.metrics import Metrics
from reviewguard.serve.served import Served

ArmName: TypeAlias = Literal["champion", "challenger"]
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"


class UnavailableError(Exception):
    """No replica of a model answers."""


class Arm(Protocol):
    """A model, in this process or in another one."""

    @property
    def served(self) -> Served:
        """The model."""

    @property
    def waiting(self) -> int:
        """Number of texts that wait."""

    async def predictions(self, texts: list[str]) -> tuple[Served, list[Prediction]]:
        """Predict texts, and name the model that did: it may have been replaced meanwhile.

        Raises:
            ClosedError: If the server is stopping.
            OverloadedError: If too many texts are waiting.
            PredictionError: If the model fails.
            UnavailableError: If no replica of the model answers.
        """


@dataclass(frozen=True)
class Answer:
    """The prediction of a text, and the arm and the model that made it."""

    arm: ArmName
    served: Served
    prediction: Prediction


@dataclass(frozen=True)
class Arms:
    """The champion, and a challenger if there is one.

    Attributes:
        champion: Answers all texts, or those that are not assigned to the challenger.
        challenger: None: there is no test.
        share: Share of the keys whose texts the challenger answers; 0 without a challenger and in a shadow.
        shadow: Whether the challenger predicts what the champion answers.
        experiment: Name of the test. Another name assigns keys anew.
        log: Log of decisions. None: decisions are not logged.
        metrics: Metrics of the server.
    """

    champion: Arm
    challenger: Arm | None
    share: float
    shadow: bool
    experiment: str
    log: DecisionLog | None
    metrics: Metrics
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def arm_of(self, key: str) -> ArmName:
        """The arm that answers for a key. It depends on the key and the name of the test only."""
        digest = hashlib.sha256(f"{self.experiment}\0{key}".encode("utf-8", "surrogatepass")).digest()
        return CHALLENGER if int.from_bytes(digest[:8], "big") < self.share * 2**64 else CHAMPION

    async def answers(self, texts: Sequence[str], keys: Sequence[str] | None) -> list[Answer]:
        """Predict each text with the arm of its key.

        Args:
            texts: Texts.
            keys: A key for each text, such as the id of its author. None: the texts are their own keys.

        Raises:
            ClosedError: If the server is stopping.
            OverloadedError: If too many texts are waiting.
            PredictionError: If a model fails.
        """
        keys = texts if keys is None else keys
        rows: dict[ArmName, list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            rows[self.arm_of(key)].append(row)
        found = await asyncio.gather(*(self._predicted(name, texts, keys, mine) for name, mine in rows.items()))
        by_row = {
            row: Answer(name, served, one)
            for (name, mine), (served, got) in zip(rows.items(), found, strict=True)
            for row, one in zip(mine, got, strict=True)
        }
        if self.shadow and self.challenger is not None:
            task = asyncio.create_task(self._shadowed(texts, keys))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return [by_row[row] for row in range(len(texts))]

    async def finish(self) -> None:
        """Wait for predictions in the shadow."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _predicted(
        self, name: ArmName, texts: Sequence[str], keys: Sequence[str], rows: list[int]
    ) -> tuple[Served, list[Prediction]]:
        arm = self.champion if name == CHAMPION else self.challenger
        assert arm is not None
        started = time.perf_counter()
        served, predictions = await arm.predictions([texts[row] for row in rows])
        seconds = time.perf_counter() - started
        self.metrics.count(served.name, name, predictions)
        if self.log is not None:
            for row, prediction in zip(rows, predictions, strict=True):
                entry = Entry(
                    time=time.time(),
                    key=hashed(keys[row]),
                    arm=name,
                    model=served.sha256,
                    label=prediction.label,
                    decision=prediction.decision,
                    scores=prediction.scores,
                    seconds=seconds,
                    share=self.share,
                    shadow=self.shadow,
                    text=texts[row],
                )
                self.log.write(entry)
        return served, predictions

    async def _shadowed(self, texts: Sequence[str], keys: Sequence[str]) -> None:
        try:
            await self._predicted(CHALLENGER, texts, keys, list(range(len(texts))))
        except Exception as error:
            # The champion has answered. A test with missing rows is better than a slower answer.
            self.metrics.lost.labels(type(error).__name__).inc(len(texts))
