"""One ONNX graph from token ids to logits, checked against torch before anyone sees it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir
import onnxscript  # noqa: F401 - torch.onnx.export imports it late; here a missing one is a clear error
import torch
from torch.export import Dim

from reviewguard.errors import ExportError
from reviewguard.nn.model import TextModel
from reviewguard.runtime import OnnxScorer
from reviewguard.tokens import Batch

#: Largest difference of a logit between torch and the graph, in fp32.
TOLERANCE: Final = 1e-4
#: Weights beyond this stand in a file beside the graph: a protobuf message holds two gibibytes at most.
INLINE_BYTES: Final = 2**31 - 2**26
DATA_NAME: Final = "model.onnx_data"
#: Batch and length of the probes; "longest" stands for the tokens that the model reads.
_SHAPES: Final = ((1, 1), (1, 7), (2, 16), (3, 33), (5, 64), (8, 21), (1, None), (2, None))


def export_onnx(model: TextModel, path: Path, *, max_length: int, classes: Sequence[str]) -> float:
    """Export to a file and compare it with torch on padded batches of several shapes.

    Args:
        model: On the CPU, float32.
        path: The file to write; of weights beyond `INLINE_BYTES`, `DATA_NAME` is written beside it.
        max_length: Tokens that the model reads of a text.
        classes: The labels, in the order of the logits.

    Returns:
        The largest difference of a logit seen, at most `TOLERANCE`.

    Raises:
        ExportError: If the graph cannot be made, or differs by more.
    """
    home = next(model.parameters()).device
    try:
        return _export(model.to("cpu").eval().requires_grad_(False), path, max_length, classes)
    finally:
        model.to(home)


def _export(model: TextModel, path: Path, max_length: int, classes: Sequence[str]) -> float:
    example = _probe(model, 2, 16, seed=0)
    # Two distinct tensors: one object given twice would be traced as one input, and the graph would ignore the mask.
    inputs = tuple(torch.from_numpy(example[name]) for name in ("input_ids", "attention_mask"))
    shape = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")  # the exporter's own deprecations, nothing of the model
            program = torch.onnx.export(
                model,
                inputs,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes=(shape, shape),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        # The exporter notes on each node where in the source it came from: paths of this machine, in every copy of the model.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
        outside = DATA_NAME if weights > INLINE_BYTES else None
        onnx_ir.save(program.model, path, external_data=outside)
        scorer = OnnxScorer(path, classes)
    except Exception as error:  # the exporter's errors share no base class
        raise ExportError(f"torch could not export this model to ONNX: {type(error).__name__}: {error}") from error
    worst = 0.0
    for seed, (batch, length) in enumerate(_SHAPES, start=1):
        probe = _probe(model, batch, length or max_length, seed)
        difference = float(np.abs(scorer.logits(probe) - model.logits(probe)).max())
        if not difference <= TOLERANCE:
            path.unlink()
            path.with_name(DATA_NAME).unlink(missing_ok=True)
            raise ExportError(
                f"the exported graph differs from torch by {difference:.3g} on a batch of {batch} x {length or max_length} "
                f"tokens; at most {TOLERANCE:g} is allowed. Nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _probe(model: TextModel, batch: int, length: int, seed: int) -> Batch:
    """Random token ids, rows of different lengths, padded on the right."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, size=batch)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(0, int(model.encoder.config.vocab_size), size=(batch, length))
    return {"input_ids": ids * mask, "attention_mask": mask}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
