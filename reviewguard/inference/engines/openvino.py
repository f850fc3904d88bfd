"""Run an ONNX graph with OpenVINO, in bf16 if the CPU supports it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from reviewguard import telemetry
from reviewguard.data.tokens import Batch
from reviewguard.errors import BundleError
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.scoring import Floats

with telemetry.openvino_without():
    import openvino

# OpenVINO's numpy bridge initialises at first use, and deadlocks if two threads do this at once.
openvino.Tensor(np.zeros(1, dtype=np.float32))


def computes_in_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products (AMX or AVX512-BF16)."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoScorer(CpuScorer):
    """Computes logits on the CPU with OpenVINO, in fp32 or bf16."""

    engine = "openvino"

    @cached_property
    def _requests(self) -> threading.local:
        return threading.local()

    def _load(self, side_by_side: int) -> Any:
        hints = {
            "NUM_STREAMS": side_by_side,
            "INFERENCE_NUM_THREADS": self.workers,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
        }
        try:
            compiled = openvino.Core().compile_model(self.path, "CPU", hints)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load {self.path}: {error}") from error
        widths = [item.partial_shape[-1] for item in compiled.outputs]
        outputs = [
            (item.any_name, width.get_length() if width.is_static else None)
            for item, width in zip(compiled.outputs, widths, strict=True)
        ]
        self._require_fit({item.any_name for item in compiled.inputs}, outputs)
        return compiled

    def _run(self, names: Sequence[str], batch: Batch, alone: bool) -> list[Floats]:
        compiled, name = self._session(alone), "one" if alone else "many"
        # An inference request may be used by one thread at a time.
        request = getattr(self._requests, name, None)
        if request is None:
            request = compiled.create_infer_request()
            setattr(self._requests, name, request)
        try:
            request.infer(dict(batch))
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot run {self.path}: {error}") from error
        return [np.array(request.get_tensor(name).data, dtype=np.float32) for name in names]
