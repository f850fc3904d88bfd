"""Models in the process of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from reviewguard.bundle.folder import is_bundle
from reviewguard.errors import ConfigError
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Prediction
from reviewguard.serve.arms import Arm
from reviewguard.serve.batching import Batcher
from reviewguard.serve.metrics import Metrics
from reviewguard.serve.served import Served, load, require_same_classes
from reviewguard.serve.settings import Settings

#: Characters of a token of English text, on average; used to fill a batch before its texts are tokenised.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class LocalArm:
    """A model that computes batches in a thread of this process."""

    served: Served
    trained: TrainedModel
    batcher: Batcher

    @property
    def waiting(self) -> int:
        """Number of texts that wait."""
        return self.batcher.waiting

    async def predictions(self, texts: list[str]) -> tuple[Served, list[Prediction]]:
        """Predict texts together with those of other requests; see `reviewguard.serve.arms.Arm`."""
        return self.served, await self.batcher.predictions(texts, self.trained)


class LocalModels:
    """The champion, and the challenger if there is one, in the process of the server."""

    def __init__(self, settings: Settings) -> None:
        """Load the models.

        Raises:
            BundleError: If a model cannot be loaded.
            ConfigError: If the folder to watch is not local, or the models have different classes.
        """
        if settings.watch_seconds and (settings.model is None or not is_bundle(Path(settings.model))):
            raise ConfigError("watch_seconds needs a model in a local folder")
        self._settings = settings
        self._loaded = [load(settings.model, settings.name, settings)]
        if settings.challenger is not None:
            self._loaded.append(load(settings.challenger, settings.challenger_name, settings))
        require_same_classes(*(served for served, _ in self._loaded))

    @asynccontextmanager
    async def running(self, metrics: Metrics) -> AsyncIterator[list[Arm]]:
        """Compute batches. At the end, everything that was accepted is computed first."""
        arms: list[Arm] = []
        batchers: list[Batcher] = []
        for served, trained in self._loaded:
            scorer = trained.scorer
            most_characters = scorer.token_budget * scorer.workers * _CHARACTERS_PER_TOKEN
            batchers.append(Batcher(self._settings.limits, most_characters, metrics.batch.observe))
            arms.append(LocalArm(served, trained, batchers[-1]))
        tasks = [asyncio.create_task(batcher.run()) for batcher in batchers]
        try:
            yield arms
        finally:
            for batcher in batchers:
                batcher.close()
            await asyncio.gather(*tasks)
