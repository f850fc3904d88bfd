"""Logits from an ONNX graph by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from reviewguard.errors import BundleError
from reviewguard.scoring import Floats
from reviewguard.tokens import Batch


class OnnxScorer:
    """Logits on the CPU, by onnxruntime."""

    # Small batches keep a layer's activations in the cache of a core.
    token_budget = 512

    def __init__(self, path: Path, classes: Sequence[str], threads: int, precision: str = "fp32") -> None:
        """Take a graph; it is loaded when it is first needed, so that a process may still fork.

        Args:
            path: The ONNX file, already verified against its manifest.
            classes: The labels, to check the graph's output width against.
            threads: Cores to keep busy.
            precision: Of the graph.
        """
        self._made_of = path, classes, threads, precision
        self.workers = threads
        self.name = f"onnxruntime in {precision}, threads: {threads}"

    def __reduce__(self) -> tuple[type[OnnxScorer], tuple[Path, Sequence[str], int, str]]:
        # A session cannot be copied to another process; its file can be read there.
        return type(self), self._made_of

    # Many batches are computed fastest by one thread each, side by side; a single one by all threads together. A session is made
    # for one or the other, and only what is used is loaded.

    @cached_property
    def _of_many(self) -> onnxruntime.InferenceSession:
        return self._load(threads=1)

    @cached_property
    def _of_one(self) -> onnxruntime.InferenceSession:
        return self._load(self.workers) if self.workers > 1 else self._of_many

    def _load(self, threads: int) -> onnxruntime.InferenceSession:
        path, classes, *_ = self._made_of
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no public base class
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        inputs = {item.name for item in session.get_inputs()}
        outputs = [(item.name, item.shape[-1] if item.shape else None) for item in session.get_outputs()]
        if inputs != {"input_ids", "attention_mask"} or outputs != [("logits", len(classes))]:
            raise BundleError(
                f"{path} maps {sorted(inputs)} to {outputs}; expected input_ids and attention_mask to logits of width "
                f"{len(classes)}"
            )
        return session

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, classes), for int64 (batch, length) inputs; by all threads if no other batch is computed.

        Raises:
            BundleError: If the graph cannot be loaded or has other inputs or outputs than expected.
        """
        session = self._of_one if alone else self._of_many
        return np.asarray(session.run(["logits"], dict(batch))[0], dtype=np.float32)
