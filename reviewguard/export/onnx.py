"""One ONNX graph from token ids to logits, and to the embeddings that they are computed from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx_ir
import torch
from onnxscript.rewriter import RewriteRule, RewriteRuleSet
from torch import Tensor, nn
from torch.export import Dim

from reviewguard.errors import ExportError
from reviewguard.inference.engines.cpu import EMBEDDINGS, LOGITS
from reviewguard.inference.model import TrainedModel
from reviewguard.models.text_model import TextModel

#: Weights beyond this stand in a file beside the graph: a protobuf message holds two gibibytes at most.
INLINE_BYTES: Final = 2**31 - 2**26
DATA_NAME: Final = "model.onnx_data"


def _is_softmax(_: Any, x: onnx_ir.Value, zero: onnx_ir.Value) -> bool:
    producer = x.producer()
    return producer is not None and producer.op_type == "Softmax"


#: Torch guards attention against rows that may look at no token. Here each has one: a text has a token, and padding comes last.
_UNGUARDED: Final = RewriteRuleSet(
    [RewriteRule(lambda op, x, zero: op.Where(op.IsNaN(x), zero, x), lambda op, x, zero: op.Identity(x), _is_softmax)]
)


class _Outputs(nn.Module):
    """Both outputs of the graph. Other runtimes read the logits and leave the embeddings alone."""

    def __init__(self, model: TextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.model.embeddings(input_ids, attention_mask)
        return self.model.head(embeddings), embeddings


def export_onnx(trained: TrainedModel, path: Path) -> None:
    """Export a model to a file; `reviewguard.export.gate` judges what comes of it.

    Args:
        trained: Whose scorer is a torch model in float32, without adapters.
        path: The file to write; of weights beyond `INLINE_BYTES`, `DATA_NAME` is written beside it.

    Raises:
        ExportError: If the graph cannot be made.
    """
    model = trained.scorer
    assert isinstance(model, TextModel)
    home = next(model.parameters()).device
    try:
        _export(model.to("cpu").eval().requires_grad_(False), path)
    finally:
        model.to(home)


def _export(model: TextModel, path: Path) -> None:
    # Two distinct tensors: one object given twice would be traced as one input, and the graph would ignore the mask.
    mask = torch.tensor([[1] * 16, [1] * 9 + [0] * 7])
    inputs = (torch.arange(3, 35).reshape(2, 16) * mask, mask)
    shape = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")  # the exporter's own deprecations, nothing of the model
            program = torch.onnx.export(
                _Outputs(model),
                inputs,
                input_names=["input_ids", "attention_mask"],
                output_names=[LOGITS, EMBEDDINGS],
                dynamic_shapes=(shape, shape),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        _UNGUARDED.apply_to_model(program.model)
        onnx_ir.passes.common.IdentityEliminationPass()(program.model)
        onnx_ir.passes.common.RemoveUnusedNodesPass()(program.model)
        # The exporter notes on each node where in the source it came from: paths of this machine, in every copy of the model.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
        outside = DATA_NAME if weights > INLINE_BYTES else None
        onnx_ir.save(program.model, path, external_data=outside)
    except Exception as error:  # the exporter's errors share no base class
        raise ExportError(f"torch could not export this model to ONNX: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
