"""Base class of the engines."""

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

#: Outputs of a graph. Graphs written by earlier versions have no embeddings.
LOGITS: Final = "logits"
EMBEDDINGS: Final = "embeddings"
#: Sessions inherited from a parent process.
_ABANDONED: Final[list[object]] = []


class CpuScorer(ABC):
    """A graph on the CPU.

    Many batches are fastest with one thread per batch, in parallel; a single batch is fastest with all threads. An engine's
    session supports one of the two, and each session is loaded when it is first needed.
    """

    engine: ClassVar[str]
    # Small batches keep a layer's activations in a core's cache.
    token_budget = 512

    def __init__(self, path: Path, classes: Sequence[str], threads: int, precision: str = "fp32") -> None:
        """Set the graph. It is loaded at first use, so that the process can still fork.

        Args:
            path: ONNX file, already verified against its manifest.
            classes: Class labels, to check the graph's output width.
            threads: Number of cores to use.
            precision: Precision of matrix products.
        """
        self.path, self.classes, self.workers, self.precision = path, classes, threads, precision
        self.name = f"{self.engine} in {precision}, threads: {threads}"
        self._loading = threading.Lock()
        self._embeds = False
        self._process = os.getpid()

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Compute logits, float32 (batch, classes), from int64 (batch, length) inputs. With `alone`, use all threads.

        Raises:
            BundleError: If the graph cannot be loaded or run, or has unexpected inputs or outputs.
        """
        return self._outputs((LOGITS,), batch, alone)[0]

    def embedded(self, batch: Batch, *, alone: bool = False) -> tuple[Floats, Floats]:
        """Compute logits, and the embeddings from which they are computed, float32 (batch, width).

        Raises:
            BundleError: As for `logits`.
            ConfigError: If the export has no embeddings, because an earlier version wrote it.
        """
        self._session(alone)
        if not self._embeds:
            raise ConfigError(f"{self.path} has no embeddings, because an earlier version exported it; export the model again")
        logits, embeddings = self._outputs((LOGITS, EMBEDDINGS), batch, alone)
        return logits, embeddings

    def _outputs(self, names: Sequence[str], batch: Batch, alone: bool) -> list[Floats]:
        values, rows = self._run(names, batch, alone), len(batch["input_ids"])
        for name, value in zip(names, values, strict=True):
            # OpenVINO returns empty arrays, and no error, for some graphs that it cannot run.
            if value.ndim != 2 or len(value) != rows or (name == LOGITS and value.shape[1] != len(self.classes)):
                raise BundleError(f"{self.engine} computed {name} of shape {value.shape} for {rows} texts with {self.path}")
        return values

    @abstractmethod
    def _run(self, names: Sequence[str], batch: Batch, alone: bool) -> list[Floats]:
        """Compute outputs by name."""

    def __reduce__(self) -> tuple[type[Self], tuple[Path, Sequence[str], int, str]]:
        # A session cannot be pickled; another process loads the file again.
        return type(self), (self.path, self.classes, self.workers, self.precision)

    def _session(self, alone: bool) -> Any:
        """The session for a single batch or for many. Loaded once per process, thread-safe."""
        if self._process != os.getpid():
            self._discard_inherited()
        with self._loading:
            return self._of_one if alone else self._of_many

    def _discard_inherited(self) -> None:
        """Discard the parent's sessions in a forked process: their threads do not exist here."""
        # Keep a reference: destroying a session waits for its threads.
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
        """Create a session for this many parallel batches, which share the threads.

        Raises:
            BundleError: If the graph cannot be loaded, or if `_require_fit` fails.
        """

    def _require_fit(self, inputs: set[str], outputs: list[tuple[str, Any]]) -> None:
        """Check that a loaded graph has the inputs and outputs of a classifier."""
        others = {name for name, _ in outputs} - {LOGITS}
        fits = (LOGITS, len(self.classes)) in outputs and others <= {EMBEDDINGS}
        if inputs != {"input_ids", "attention_mask"} or not fits:
            raise BundleError(
                f"{self.path} maps {sorted(inputs)} to {outputs}; expected input_ids and attention_mask to logits of width "
                f"{len(self.classes)}"
            )
        self._embeds = EMBEDDINGS in others
