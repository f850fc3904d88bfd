"""What the engines have in common."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from reviewguard.data.tokens import Batch
from reviewguard.errors import BundleError, ConfigError
from reviewguard.inference.scoring import Floats

#: Outputs of a graph. Those of earlier versions have no embeddings.
LOGITS: Final = "logits"
EMBEDDINGS: Final = "embeddings"
#: Sessions of a process that this one was forked from.
_ABANDONED: Final[list[object]] = []


class CpuScorer(ABC):
    """A graph on the CPU.

    Many batches are computed fastest by one thread each, side by side; a single one by all threads together. A session of an
    engine is made for one or the other, and only what is used is loaded.
    """

    engine: ClassVar[str]
    # Small batches keep a layer's activations in the cache of a core.
    token_budget = 512

    def __init__(self, path: Path, classes: Sequence[str], threads: int, precision: str = "fp32") -> None:
        """Take a graph; it is loaded when it is first needed, so that a process may still fork.

        Args:
            path: The ONNX file, already verified against its manifest.
            classes: The labels, to check the graph's output width against.
            threads: Cores to keep busy.
            precision: Of the products.
        """
        self.path, self.classes, self.workers, self.precision = path, classes, threads, precision
        self.name = f"{self.engine} in {precision}, threads: {threads}"
        self._loading = threading.Lock()
        self._embeds = False
        self._process = os.getpid()

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, classes), for int64 (batch, length) inputs; by all threads if no other batch is computed.

        Raises:
            BundleError: If the graph cannot be loaded or computed, or has other inputs or outputs than expected.
        """
        return self._run((LOGITS,), batch, alone)[0]

    def embedded(self, batch: Batch, *, alone: bool = False) -> tuple[Floats, Floats]:
        """Logits, and the embeddings that they are computed from, float32 (batch, width).

        Raises:
            BundleError: As `logits`.
            ConfigError: If an earlier version made the export, without embeddings.
        """
        self._session(alone)
        if not self._embeds:
            raise ConfigError(f"{self.path} gives no embeddings: an earlier version exported it; export the model again")
        logits, embeddings = self._run((LOGITS, EMBEDDINGS), batch, alone)
        return logits, embeddings

    @abstractmethod
    def _run(self, names: Sequence[str], batch: Batch, alone: bool) -> list[Floats]:
        """Compute outputs by name."""

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Sequence[str], int, str]]:
        # A session cannot be copied to another process; its file can be read there.
        return type(self), (self.path, self.classes, self.workers, self.precision)

    def _session(self, alone: bool) -> Any:
        """The session for one batch, or that for many; loaded once in a process, whichever thread comes first."""
        if self._process != os.getpid():
            self._begin_anew()
        with self._loading:
            return self._of_one if alone else self._of_many

    def _begin_anew(self) -> None:
        """Forget, in a forked process, the sessions of its parent: their threads stayed there."""
        # To destroy a session would be to wait for its threads.
        _ABANDONED.append([self.__dict__.pop(name, None) for name in ("_of_many", "_of_one", "_requests")])
        self._loading, self._process = threading.Lock(), os.getpid()

    @cached_property
    def _of_many(self) -> Any:
        return self._load(side_by_side=self.workers)

    @cached_property
    def _of_one(self) -> Any:
        return self._load(side_by_side=1) if self.workers > 1 else self._of_many

    @abstractmethod
    def _load(self, side_by_side: int) -> Any:
        """Make a session for so many batches at once, which share the threads.

        Raises:
            BundleError: If the graph cannot be loaded, or `_require_fit` says so.
        """

    def _require_fit(self, inputs: set[str], outputs: list[tuple[str, Any]]) -> None:
        """See that a loaded graph has the inputs, and the outputs with their width, that a classifier has."""
        others = {name for name, _ in outputs} - {LOGITS}
        fits = (LOGITS, len(self.classes)) in outputs and others <= {EMBEDDINGS}
        if inputs != {"input_ids", "attention_mask"} or not fits:
            raise BundleError(
                f"{self.path} maps {sorted(inputs)} to {outputs}; expected input_ids and attention_mask to logits of width "
                f"{len(self.classes)}"
            )
        self._embeds = EMBEDDINGS in others
