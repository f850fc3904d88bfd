"""Prediction from an ONNX graph, with onnxruntime and numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from reviewguard.errors import BundleError
from reviewguard.scoring import Floats
from reviewguard.tokens import Batch


class OnnxScorer:
    """Logits from `onnx/model.onnx` on the CPU."""

    # Small batches keep a layer's activations in the cache of a CPU.
    token_budget = 512

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        """Load a graph.

        Args:
            path: The ONNX file, already verified against its manifest.
            classes: The labels, to check the graph's output width against.

        Raises:
            BundleError: If the graph cannot be loaded or has other inputs or outputs than expected.
        """
        self._made_of = path, classes
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no public base class
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        inputs = {item.name for item in self._session.get_inputs()}
        outputs = [(item.name, item.shape[-1] if item.shape else None) for item in self._session.get_outputs()]
        if inputs != {"input_ids", "attention_mask"} or outputs != [("logits", len(classes))]:
            raise BundleError(
                f"{path} maps {sorted(inputs)} to {outputs}; expected input_ids and attention_mask to logits of width "
                f"{len(classes)}"
            )

    def __reduce__(self) -> tuple[type[OnnxScorer], tuple[Path, Sequence[str]]]:
        # A session cannot be copied to another process; its file can be read there.
        return type(self), self._made_of

    def logits(self, batch: Batch) -> Floats:
        """Logits, float32 (batch, classes), for int64 (batch, length) inputs."""
        return np.asarray(self._session.run(["logits"], dict(batch))[0], dtype=np.float32)
