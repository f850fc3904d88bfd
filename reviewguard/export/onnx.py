"""Export a model as one ONNX graph, from token ids to logits and embeddings."""

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

#: Larger weights are written to a separate file: a protobuf message is limited to two gibibytes.
INLINE_BYTES: Final = 2**31 - 2**26
DATA_NAME: Final = "model.onnx_data"


def _is_softmax(_: Any, x: onnx_ir.Value, zero: onnx_ir.Value) -> bool:
    producer = x.producer()
    return producer is not None and producer.op_type == "Softmax"


#: Removes torch's guard for fully masked attention rows. They do not occur: each text has a token, and padding comes last.
_UNGUARDED: Final = RewriteRuleSet(
    [RewriteRule(lambda op, x, zero: op.Where(op.IsNaN(x), zero, x), lambda op, x, zero: op.Identity(x), _is_softmax)]
)


class _Outputs(nn.Module):
    """Returns both outputs of the graph. Other runtimes may use the logits and ignore the embeddings."""

    def __init__(self, model: TextModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.model.embeddings(input_ids, attention_mask)
        return self.model.head(embeddings), embeddings


def export_onnx(trained: TrainedModel, path: Path) -> None:
    """Export a model to a file. `reviewguard.export.gate` checks the result.

    Args:
        trained: Model whose scorer is a torch model in float32, without adapters.
        path: Output file. If the weights exceed `INLINE_BYTES`, they are written to `DATA_NAME` in the same folder.

    Raises:
        ExportError: If the model cannot be exported.
    """
    model = trained.scorer
    assert isinstance(model, TextModel)
    device = next(model.parameters()).device
    try:
        _export(model.to("cpu").eval().requires_grad_(False), path)
    finally:
        model.to(device)


def _export(model: TextModel, path: Path) -> None:
    # Two distinct tensors: the same object given twice would be traced as one input, and the graph would ignore the mask.
    mask = torch.tensor([[1] * 16, [1] * 9 + [0] * 7])
    inputs = (torch.arange(3, 35).reshape(2, 16) * mask, mask)
    shape = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")  # deprecation warnings of the exporter itself
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
        # The exporter records source locations on each node, which would publish this machine's paths with the model.
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
