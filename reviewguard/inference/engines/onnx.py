"""Run an ONNX graph with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnxruntime

from reviewguard.data.tokens import Batch
from reviewguard.errors import BundleError
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.scoring import Floats

#: This fused kernel is several times slower than the two that it replaces: a tenth of MiniLM's time (onnxruntime 1.32).
_SLOWER: Final = ["SkipLayerNormFusion"]


class OnnxScorer(CpuScorer):
    """Computes logits on the CPU with onnxruntime."""

    engine = "onnxruntime"

    def _load(self, side_by_side: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.workers // side_by_side
        options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
            )
        except Exception as error:  # onnxruntime's errors share no public base class
            raise BundleError(f"onnxruntime cannot load {self.path}: {error}") from error
        outputs = [(item.name, item.shape[-1] if item.shape else None) for item in session.get_outputs()]
        self._require_fit({item.name for item in session.get_inputs()}, outputs)
        return session

    def _run(self, names: Sequence[str], batch: Batch, alone: bool) -> list[Floats]:
        session = self._session(alone)
        try:
            return [np.asarray(values, dtype=np.float32) for values in session.run(list(names), dict(batch))]
        except Exception as error:  # no public base class, as above
            raise BundleError(f"onnxruntime cannot run {self.path}: {error}") from error
