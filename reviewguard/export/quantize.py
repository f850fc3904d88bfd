"""Int8 quantisation of an exported graph: 8-bit weights, and activations quantised per token.

Standard dynamic quantisation uses one scale for a whole batch, so that a text's probability depends on the other texts in its
batch. Here each token has its own scale, as in ZeroQuant (Yao et al. 2022, arXiv:2206.01861): each row of a batch depends on
that row alone, and the quantisation is finer. The graph uses only standard ONNX operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

#: Zero point of the activations. They are unsigned: every CPU has instructions for products of unsigned and signed integers.
_ZERO: Final = np.uint8(128)
#: Lower bound of the scale, for rows of zeros.
_SMALLEST: Final = np.float32(1e-12)
#: Lower bound of GELU: its output uses the full unsigned range from here, instead of half of it from zero.
_GELU_FLOOR: Final = np.float32(-0.17)
_LAST_AXIS: Final = np.array([-1])
#: Minimum number of rows of a table to quantise; smaller ones, such as position embeddings, save too little.
_TABLE_ROWS: Final = 1000


def quantize(source: Path, target: Path) -> None:
    """Quantise the linear layers and embeddings of a graph.

    Args:
        source: Graph in float32.
        target: Output file.
    """
    model = onnx_ir.load(source)
    rules = [
        RewriteRule(lambda op, x, weight: op.MatMul(x, weight), _linear, lambda _, weight, **more: _constant(weight) is not None),
        RewriteRule(lambda op, table, ids: op.Gather(table, ids), _embedding, _is_large),
    ]
    RewriteRuleSet(rules).apply_to_model(model)
    # Store shared weights once, and quantise shared inputs once, such as those of queries, keys and values.
    onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    onnx_ir.passes.common.DeduplicateHashedInitializersPass(size_limit=2**62)(model)
    onnx_ir.passes.common.CommonSubexpressionEliminationPass()(model)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    onnx_ir.save(model, target)


def _linear(op: Any, x: onnx_ir.Value, weight: onnx_ir.Value) -> onnx_ir.Value:
    """An integer product with constant weights, scaled by row and by column."""
    values = _constant(weight)
    assert values is not None
    scales = _scales(_in_pairs(values), axis=0)
    integers = np.round(values / scales)
    columns, stored = _put(op, scales[0]), _put(op, integers.astype(np.int8))
    producer = x.producer()
    floor = _GELU_FLOOR if producer is not None and producer.op_type == "Gelu" else None
    # Reshape to one row per token, so that a single standard operator quantises by token.
    flat = op.Reshape(x, _put(op, np.array([-1, len(values)])))
    largest = op.ReduceMax(op.Abs(flat) if floor is None else op.Sub(flat, _put(op, floor)), _put(op, _LAST_AXIS), keepdims=0)
    rows = op.Mul(op.Max(largest, _put(op, _SMALLEST)), _put(op, np.float32(1 / (127 if floor is None else 255))))
    point = _ZERO if floor is None else np.uint8(0)
    points = op.ConstantOfShape(op.Shape(rows), value=onnx_ir.tensor(np.array([point])))
    tokens = op.QuantizeLinear(flat if floor is None else op.Sub(flat, _put(op, floor)), rows, points, axis=0)
    product = op.Cast(op.MatMulInteger(tokens, stored, _put(op, point)), to=onnx_ir.DataType.FLOAT)
    product = op.Mul(op.Mul(product, columns), op.Unsqueeze(rows, _put(op, _LAST_AXIS)))
    shape = op.Concat(op.Shape(x, end=-1), _put(op, np.array([values.shape[1]])), axis=0)
    scaled: onnx_ir.Value = op.Reshape(product, shape)
    if floor is None:
        return scaled
    # The contribution of the floor is the same for every token.
    raised: onnx_ir.Value = op.Add(scaled, _put(op, floor * (integers * scales).sum(axis=0)))
    return raised


def _is_large(_: Any, table: onnx_ir.Value, **more: Any) -> bool:
    values = _constant(table)
    # Tables with one column are the scales that this rule itself creates.
    return values is not None and len(values) >= _TABLE_ROWS and values.shape[1] > 1


def _embedding(op: Any, table: onnx_ir.Value, ids: onnx_ir.Value) -> onnx_ir.Value:
    """Lookup in a large table with 8-bit rows, each with its own scale."""
    values = _constant(table)
    assert values is not None
    scales = _scales(values, axis=1)
    stored, rows = _put(op, np.round(values / scales).astype(np.int8)), _put(op, scales)
    scaled: onnx_ir.Value = op.Mul(op.Cast(op.Gather(stored, ids), to=onnx_ir.DataType.FLOAT), op.Gather(rows, ids))
    return scaled


def _constant(value: onnx_ir.Value) -> NDArray[np.float32] | None:
    """The value as a matrix of floats, if it is constant."""
    if value.const_value is None or value.const_value.dtype != onnx_ir.DataType.FLOAT:
        return None
    values = value.const_value.numpy()
    return values if values.ndim == 2 else None


def _in_pairs(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of the positive and of the negative values of every two rows: the extremes of their contribution to a product.

    CPUs without VNNI instructions add the products of two neighbours in 16 bits, with saturation. The scale maps the largest of
    these sums to 127, and rounding makes it at most 128. Multiplied by an activation of 255, this fits into 16 bits, so that a
    graph gives the same logits on every CPU. The usual remedy, 7-bit weights, would double every quantisation step.
    """
    pairs = np.pad(values, ((0, len(values) % 2), (0, 0))).reshape(-1, 2, values.shape[1])
    return np.concatenate([pairs.clip(min=0).sum(axis=1), pairs.clip(max=0).sum(axis=1)])


def _scales(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Size of one 8-bit step along an axis; 1 for all-zero rows or columns."""
    scales: NDArray[np.float32] = np.abs(values).max(axis=axis, keepdims=True) / np.float32(127)
    return np.where(scales > 0, scales, np.float32(1))


def _put(op: Any, values: np.generic | NDArray[Any]) -> onnx_ir.Value:
    constant: onnx_ir.Value = op.Constant(value=onnx_ir.tensor(values))
    return constant
