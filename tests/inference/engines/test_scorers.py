"""All engines compute the same logits and refuse graphs with other inputs or outputs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import int8_of

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError
from reviewguard.inference.engines.onnx import OnnxScorer
from reviewguard.inference.engines.openvino import OpenVinoScorer, computes_in_bf16

TEXTS = ["a kettle", "?", "Great pan, highly recommend it to everyone! " * 9, "no"] * 60


@pytest.fixture(scope="module")
def export(classifier: Classifier, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    reviews = read(sample)
    return int8_of(classifier, tmp_path_factory.mktemp("engines") / "export", (reviews.texts, reviews.labels))


@pytest.mark.parametrize(
    ("runtime", "precision", "tolerance"),
    [("onnxruntime", "fp32", 1e-5), ("onnxruntime", "int8", 0.05), ("openvino", "fp32", 1e-4)],
)
def test_every_engine_matches_torch(classifier: Classifier, export: Path, runtime: str, precision: str, tolerance: float) -> None:
    expected = classifier.predict_proba(TEXTS)
    for threads in (1, 3):
        loaded = Classifier.from_pretrained(export, runtime=runtime, precision=precision, threads=threads)
        assert loaded.runtime == f"{runtime} in {precision}, threads: {threads}"
        np.testing.assert_allclose(loaded.predict_proba(TEXTS), expected, atol=tolerance)
        single = np.concatenate([loaded.predict_proba([text]) for text in TEXTS[:4]])
        np.testing.assert_allclose(single, expected[:4], atol=tolerance)
        copied = pickle.loads(pickle.dumps(loaded))
        np.testing.assert_allclose(copied.predict_proba(TEXTS[:4]), single, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_predictions_do_not_depend_on_the_batch(export: Path, precision: str) -> None:
    loaded = Classifier.from_pretrained(export, runtime="onnxruntime", precision=precision)
    alone = np.concatenate([loaded.predict_proba([text]) for text in TEXTS[:4]])
    np.testing.assert_allclose(loaded.predict_proba(TEXTS)[-4:], alone, atol=1e-5)


@pytest.mark.parametrize("scorer", [OnnxScorer, OpenVinoScorer])
def test_a_graph_with_other_inputs_or_outputs_is_refused(scorer: type, export: Path, tmp_path: Path) -> None:
    batch = {"input_ids": np.ones((1, 3), np.int64), "attention_mask": np.ones((1, 3), np.int64)}
    graph = export / "onnx" / "model.onnx"
    with pytest.raises(BundleError, match="logits of width 3"):
        scorer(graph, ["a", "b", "c"], 1, "fp32").logits(batch)
    model = onnx.load(graph)
    for node in model.graph.node:
        node.input[:] = ["ids" if name == "input_ids" else name for name in node.input]
    model.graph.input[0].name = "ids"
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(BundleError, match="expected input_ids and attention_mask to logits"):
        scorer(tmp_path / "renamed.onnx", ["a", "b"], 1, "fp32").logits(batch)
    (tmp_path / "noise.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="cannot load"):
        scorer(tmp_path / "noise.onnx", ["a", "b"], 1, "fp32").logits(batch)


def test_bf16_nearly_matches_torch(classifier: Classifier, export: Path) -> None:
    if not computes_in_bf16():
        pytest.skip("this CPU does not compute in bf16")
    loaded = Classifier.from_pretrained(export, precision="bf16", threads=2)
    assert loaded.runtime == "openvino in bf16, threads: 2"
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=0.01)


RACE = """
import sys
from reviewguard import Classifier

sys.setswitchinterval(1e-6)
classifier = Classifier.from_pretrained(sys.argv[1], runtime="openvino", threads=8)
classifier.predict([f"Kettle {i} boils" + " well" * (i % 30) for i in range(400)])
"""


def test_several_threads_may_start_the_first_computation(export: Path) -> None:
    """In new processes: OpenVINO's numpy bridge used to hang in three of four of these runs."""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", RACE, str(export)], check=True, timeout=60)


def test_outputs_of_another_shape_are_an_error_or_right() -> None:
    """For the built-in graph, some versions of OpenVINO return an empty array and no error."""
    trained = Classifier.from_pretrained(runtime="onnxruntime")._trained()
    ours = trained.scorer
    assert isinstance(ours, OnnxScorer)
    batch = trained.tokenizer.pad(trained.tokenizer.encode(TEXTS[:4]))
    other = OpenVinoScorer(ours.path, ours.classes, 1)
    try:
        computed = other.logits(batch)
    except BundleError as error:
        assert any(reason in str(error) for reason in ("logits of shape (0, 2) for 4 texts", "OpenVINO cannot run"))
    else:
        np.testing.assert_allclose(computed, ours.logits(batch), atol=0.05)
