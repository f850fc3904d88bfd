"""The exported graph equals the model for any shape, and contains no paths of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graphs import as_fitted

from reviewguard.config import EncoderConfig
from reviewguard.export import onnx as export
from reviewguard.inference.engines.onnx import OnnxScorer
from reviewguard.models.encoder import load_encoder
from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel


@pytest.fixture(scope="module")
def model(tiny_encoder: Path) -> TextModel:
    loaded = load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=64))
    torch.manual_seed(3)
    return TextModel(loaded.encoder, LinearHead(torch.randn(2, 32), torch.randn(2))).eval()


@pytest.fixture(scope="module")
def graph(model: TextModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export.export_onnx(as_fitted(model), path)
    return path


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 5), (16, 40), (7, 64)])
@pytest.mark.parametrize("alone", [True, False])
def test_the_graph_equals_torch(model: TextModel, graph: Path, shape: tuple[int, int], alone: bool) -> None:
    rng = np.random.default_rng(99)
    lengths = rng.integers(1, shape[1] + 1, size=shape[0])
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    batch = {"input_ids": rng.integers(0, 300, size=shape) * mask, "attention_mask": mask}
    scorer = OnnxScorer(graph, ["a", "b"], threads=2)
    np.testing.assert_allclose(scorer.logits(batch, alone=alone), model.logits(batch), atol=1e-4)
    longer = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in batch.items()} if shape[1] < 50 else batch
    np.testing.assert_allclose(scorer.logits(longer, alone=alone), model.logits(batch), atol=1e-4)


def test_the_guard_for_fully_masked_rows_is_removed(graph: Path) -> None:
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert "Softmax" in operators
    assert "IsNaN" not in operators


def test_the_graph_contains_no_local_paths(graph: Path) -> None:
    content = graph.read_bytes()
    assert b"torch.onnx.stack_trace" not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(export.__file__).parent).encode() not in content
