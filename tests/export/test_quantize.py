"""Int8: close to the float32 graph, a quarter of its size, and independent of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from architectures import MAKERS
from graphs import as_fitted
from onnx import TensorProto, helper, numpy_helper

from reviewguard.export.onnx import export_onnx
from reviewguard.export.quantize import quantize
from reviewguard.inference.engines.onnx import OnnxScorer
from reviewguard.models.encoder import load_encoder
from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel


def _graph(path: Path, values: np.ndarray, before: str = "Identity", products: int = 1) -> Path:
    """A graph of products with one constant matrix, after one operator."""
    nodes = [helper.make_node(before, ["x"], ["h"])]
    nodes += [helper.make_node("MatMul", ["h", "w"], [f"y{i}"]) for i in range(products)]
    nodes += [helper.make_node("Sum", [f"y{i}" for i in range(products)], ["y"])]
    shape = [None, values.shape[0]]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, values.shape[1]])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(values, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    onnx.checker.check_model(str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def _by_hand(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The expected product in exact integers: 8 bits per row of x, and columns of w whose pairs of rows sum to at most 127."""
    even = np.pad(w, ((0, len(w) % 2), (0, 0)))
    same_sign = [np.maximum(signed[::2], 0) + np.maximum(signed[1::2], 0) for signed in (even, -even)]
    rows, columns = np.abs(x).max(axis=1, keepdims=True) / 127, np.max(same_sign, axis=(0, 1)) / 127
    return (np.round(x / rows).astype(np.int64) @ np.round(w / columns).astype(np.int64)) * rows * columns


def test_products_equal_integer_products(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((9, 64), (64, 48)))
    quantize(_graph(tmp_path / "fp32.onnx", w), tmp_path / "int8.onnx")
    np.testing.assert_allclose(_run(tmp_path / "int8.onnx", x), _by_hand(x, w), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("height", [64, 65])
def test_sums_do_not_saturate_on_any_cpu(height: int, tmp_path: Path) -> None:
    """CPUs without VNNI instructions add the products of two neighbouring weights with up to 255 in 16 bits."""
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=(height, 40)), np.full((height, 4), 2), np.full((height, 4), -2)]
    x, w = np.full((2, height), 3, dtype=np.float32), np.concatenate(columns, axis=1).astype(np.float32)
    quantize(_graph(tmp_path / "fp32.onnx", w), tmp_path / "int8.onnx")
    np.testing.assert_allclose(_run(tmp_path / "int8.onnx", x), _by_hand(x, w), rtol=1e-6)

    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    (integers,) = [values.astype(np.int64) for values in stored if values.dtype == np.int8]
    pairs = np.pad(integers, ((0, height % 2), (0, 0))).reshape(-1, 2, integers.shape[1])
    for same_sign in (pairs.clip(min=0), -pairs.clip(max=0)):
        assert 255 * same_sign.sum(axis=1).max() <= np.iinfo(np.int16).max
    # The steps are not coarser than necessary: a column of noise keeps most of its range.
    assert np.abs(integers[:, :40]).max(axis=0).mean() > 80


def test_the_full_range_is_used_after_gelu(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((200, 64), (64, 48)))
    exact = _run(_graph(tmp_path / "fp32.onnx", w, "Gelu"), x)
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    gelu = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    error, plain = (np.abs(y - exact).mean() for y in (_run(tmp_path / "int8.onnx", x), _by_hand(gelu, w)))
    assert error < 0.85 * plain


def test_rows_and_columns_of_zeros_stay_zero(tmp_path: Path) -> None:
    w = np.zeros((4, 3), dtype=np.float32)
    w[::2, 0] = 1
    quantize(_graph(tmp_path / "fp32.onnx", w), tmp_path / "int8.onnx")
    out = _run(tmp_path / "int8.onnx", np.array([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.float32))
    np.testing.assert_allclose(out, [[0, 0, 0], [2, 0, 0]], atol=1e-5)


def test_shared_matrices_are_stored_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((9, 64), (64, 48)))
    quantize(_graph(tmp_path / "fp32.onnx", w, products=3), tmp_path / "int8.onnx")
    np.testing.assert_allclose(_run(tmp_path / "int8.onnx", x), 3 * _by_hand(x, w), rtol=1e-4, atol=1e-3)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "fp32.onnx").stat().st_size


@pytest.mark.parametrize("architecture", MAKERS)
def test_every_architecture_is_independent_of_the_batch(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = load_encoder(MAKERS[architecture][0](tmp_path)).encoder
    model = TextModel(encoder, LinearHead(torch.randn(2, encoder.width), torch.zeros(2))).eval()
    export_onnx(as_fitted(model), tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    operations = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert operations.count("MatMulInteger") >= 2 * 4
    assert {imported.domain for imported in onnx.load(tmp_path / "int8.onnx").opset_import} == {""}

    rng, scorer = np.random.default_rng(0), OnnxScorer(tmp_path / "int8.onnx", ["a", "b"], threads=1)
    lengths = np.array([3, 9, 20, 12])
    mask = (np.arange(20) < lengths[:, None]).astype(np.int64)
    batch = {"input_ids": rng.integers(4, 24, size=mask.shape) * mask, "attention_mask": mask}
    together, exact = scorer.logits(batch), model.logits(batch)
    # Random weights exaggerate rounding errors; every export checks the real ones.
    assert np.abs(together - exact).mean() < 0.1 * np.abs(exact).max()
    for row, length in enumerate(lengths):
        alone = scorer.logits({name: values[row : row + 1, :length] for name, values in batch.items()})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)
