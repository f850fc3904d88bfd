"""Logits from an ONNX graph by OpenVINO, which computes in bf16 where the CPU does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from reviewguard.errors import BundleError
from reviewguard.scoring import Floats
from reviewguard.tokens import Batch


def computes_in_bf16() -> bool:
    """Whether this CPU has instructions for products in bf16 (AMX or AVX512-BF16)."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoScorer:
    """Logits on the CPU, by OpenVINO."""

    token_budget = 512

    def __init__(self, path: Path, classes: Sequence[str], threads: int, precision: str) -> None:
        """Take a graph; it is compiled when it is first needed.

        Args:
            path: The ONNX file, already verified against its manifest.
            classes: The labels, to check the graph's output width against.
            threads: Cores to keep busy.
            precision: "fp32" or "bf16", of products.
        """
        self._made_of = path, classes, threads, precision
        self.workers = threads
        self.name = f"openvino in {precision}, threads: {threads}"
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[OpenVinoScorer], tuple[Path, Sequence[str], int, str]]:
        # A compiled model cannot be copied to another process; its file can be read there.
        return type(self), self._made_of

    @cached_property
    def _of_many(self) -> Any:
        return self._compile(streams=self.workers)

    @cached_property
    def _of_one(self) -> Any:
        return self._compile(streams=1) if self.workers > 1 else self._of_many

    def _compile(self, streams: int) -> Any:
        path, classes, threads, precision = self._made_of
        hints = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        }
        try:
            compiled = openvino.Core().compile_model(path, "CPU", hints)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load {path}: {error}") from error
        inputs = {item.any_name for item in compiled.inputs}
        widths = [item.partial_shape[-1].to_string() for item in compiled.outputs]
        if inputs != {"input_ids", "attention_mask"} or widths != [str(len(classes))]:
            raise BundleError(
                f"{path} maps {sorted(inputs)} to outputs of width {widths}; expected input_ids and attention_mask to logits of "
                f"width {len(classes)}"
            )
        return compiled

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, classes), for int64 (batch, length) inputs; by all threads if no other batch is computed.

        Raises:
            BundleError: If the graph cannot be loaded or has other inputs or outputs than expected.
        """
        name, compiled = ("one", self._of_one) if alone else ("many", self._of_many)
        # A request serves one thread at a time.
        request = getattr(self._local, name, None)
        if request is None:
            request = compiled.create_infer_request()
            setattr(self._local, name, request)
        request.infer(dict(batch))
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)
