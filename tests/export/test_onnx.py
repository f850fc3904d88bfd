"""The export's gate: right graphs pass, wrong ones leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reviewguard import Classifier
from reviewguard.config import EncoderConfig
from reviewguard.errors import ExportError
from reviewguard.export import onnx as export
from reviewguard.nn.encoder import load_encoder
from reviewguard.nn.heads import LinearHead
from reviewguard.nn.model import TextModel
from reviewguard.runtime import OnnxScorer


@pytest.fixture(scope="module")
def model(tiny_encoder: Path) -> TextModel:
    loaded = load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=64))
    torch.manual_seed(3)
    return TextModel(loaded.encoder, LinearHead(torch.randn(2, 32), torch.randn(2))).eval()


@pytest.fixture(scope="module")
def graph(model: TextModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    assert 0 < export.export_onnx(model, path, max_length=64, classes=["a", "b"]) <= export.TOLERANCE
    return path


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 5), (16, 40), (7, 64)])
def test_the_graph_equals_torch_on_shapes_the_gate_did_not_try(model: TextModel, graph: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(99)
    lengths = rng.integers(1, shape[1] + 1, size=shape[0])
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    batch = {"input_ids": rng.integers(0, 300, size=shape) * mask, "attention_mask": mask}
    scorer = OnnxScorer(graph, ["a", "b"])
    np.testing.assert_allclose(scorer.logits(batch), model.logits(batch), atol=1e-4)
    longer = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in batch.items()} if shape[1] < 50 else batch
    np.testing.assert_allclose(scorer.logits(longer), model.logits(batch), atol=1e-4)


def test_the_graph_does_not_tell_where_it_was_made(graph: Path) -> None:
    content = graph.read_bytes()
    assert b"torch.onnx.stack_trace" not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(export.__file__).parent).encode() not in content


def test_a_graph_that_differs_is_refused(
    model: TextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Path, tiny_settings: dict[str, object]
) -> None:
    """Every logit of the real graph is off by rounding, so a tolerance below rounding must fail the gate."""
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    classifier = Classifier("minilm-logreg", **tiny_settings)
    classifier.train(sample)
    with pytest.raises(ExportError, match="Nothing was written"):
        classifier.export(tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_ignores_the_mask_is_refused(model: TextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known trap: one tensor given as both example inputs is traced as a single input."""
    real = torch.onnx.export

    def trapped(module, inputs, **settings):
        return real(module, (inputs[1], inputs[1]), **settings)

    monkeypatch.setattr(torch.onnx, "export", trapped)
    with pytest.raises(ExportError):
        export.export_onnx(model, tmp_path / "model.onnx", max_length=64, classes=["a", "b"])
    assert not list(tmp_path.iterdir())
