"""Int8 for an exported graph: weights in eight bits, activations quantised token by token.

The usual dynamic quantisation takes one scale for a whole batch, so that a review's probability moves with its neighbours'.
Here each token has a scale of its own, as in ZeroQuant (Yao et al. 2022, arXiv:2206.01861): a row of a batch depends on that row
alone, and is quantised more finely. All of it is standard ONNX, nothing of one runtime's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

#: Zero of the activations, which are unsigned: their products with signed weights are what every CPU has instructions for.
_ZERO: Final = np.uint8(128)
#: A row of zeros has no scale.
_SMALLEST: Final = np.float32(1e-12)
#: GELU is above this everywhere, so its output fills the unsigned range from here instead of half of it from zero.
_GELU_FLOOR: Final = np.float32(-0.17)
_LAST_AXIS: Final = np.array([-1])
#: Tables with fewer rows, such as those of positions, are not worth it.
_TABLE_ROWS: Final = 1000


def quantize(source: Path, target: Path) -> None:
    """Quantise linear layers and embeddings of a graph.

    Args:
        source: A graph in float32.
        target: The file to write.
    """
    model = onnx_ir.load(source)
    rules = [
        RewriteRule(lambda op, x, weight: op.MatMul(x, weight), _linear, lambda _, weight, **more: _constant(weight) is not None),
        RewriteRule(lambda op, table, ids: op.Gather(table, ids), _embedding, _is_large),
    ]
    RewriteRuleSet(rules).apply_to_model(model)
    # Layers that share weights store them once, and those that read the same values, as queries, keys and values do, quantise
    # them once.
    onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    onnx_ir.passes.common.DeduplicateHashedInitializersPass(size_limit=2**62)(model)
    onnx_ir.passes.common.CommonSubexpressionEliminationPass()(model)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    onnx_ir.save(model, target)


def _linear(op: Any, x: onnx_ir.Value, weight: onnx_ir.Value) -> onnx_ir.Value:
    """A product with constant weights: of integers, scaled by row and by column."""
    values = _constant(weight)
    assert values is not None
    scales = _scales(_in_pairs(values), axis=0)
    integers = np.round(values / scales)
    columns, stored = _put(op, scales[0]), _put(op, integers.astype(np.int8))
    producer = x.producer()
    floor = _GELU_FLOOR if producer is not None and producer.op_type == "Gelu" else None
    # As a matrix, one row a token: so one operator of standard ONNX quantises by token.
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
    # What the floor itself contributes is the same for every token.
    raised: onnx_ir.Value = op.Add(scaled, _put(op, floor * (integers * scales).sum(axis=0)))
    return raised


def _is_large(_: Any, table: onnx_ir.Value, **more: Any) -> bool:
    values = _constant(table)
    # One column is what the rule itself leaves: scales.
    return values is not None and len(values) >= _TABLE_ROWS and values.shape[1] > 1


def _embedding(op: Any, table: onnx_ir.Value, ids: onnx_ir.Value) -> onnx_ir.Value:
    """Rows of a large table: each in eight bits, with its scale."""
    values = _constant(table)
    assert values is not None
    scales = _scales(values, axis=1)
    stored, rows = _put(op, np.round(values / scales).astype(np.int8)), _put(op, scales)
    found: onnx_ir.Value = op.Mul(op.Cast(op.Gather(stored, ids), to=onnx_ir.DataType.FLOAT), op.Gather(rows, ids))
    return found


def _constant(value: onnx_ir.Value) -> NDArray[np.float32] | None:
    """The matrix that a value is, if it is a constant one of floats."""
    if value.const_value is None or value.const_value.dtype != onnx_ir.DataType.FLOAT:
        return None
    values = value.const_value.numpy()
    return values if values.ndim == 2 else None


def _in_pairs(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of the positive values, and of the negative ones, of every two rows: what they can come to in a product.

    CPUs without VNNI instructions add the products of two neighbours in sixteen bits, and cut off what does not fit. With steps
    that give the largest of these sums 127, rounding makes them 128 at most. Times 255 of an activation that fits, so a file
    gives the same logits on every CPU. The usual remedy, weights of seven bits, would make every step twice as coarse.
    """
    pairs = np.pad(values, ((0, len(values) % 2), (0, 0))).reshape(-1, 2, values.shape[1])
    return np.concatenate([pairs.clip(min=0).sum(axis=1), pairs.clip(max=0).sum(axis=1)])


def _scales(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """What one step of eight bits stands for, along an axis; of a line of zeros, anything."""
    scales: NDArray[np.float32] = np.abs(values).max(axis=axis, keepdims=True) / np.float32(127)
    return np.where(scales > 0, scales, np.float32(1))


def _put(op: Any, values: np.generic | NDArray[Any]) -> onnx_ir.Value:
    constant: onnx_ir.Value = op.Constant(value=onnx_ir.tensor(values))
    return constant
