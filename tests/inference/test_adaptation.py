"""An export adapts to a new kind of text from a few examples, without more false positives on reference texts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError, ConfigError, DataError
from reviewguard.inference.engines import adapted
from reviewguard.inference.references import FILE as REFERENCES
from reviewguard.inference.references import from_file

SAMPLE = Path(__file__).parents[2] / "examples" / "sample_reviews.csv"
HUMAN = [text for text, label in zip(*read(SAMPLE).require_complete(), strict=True) if label == "real"]
#: Texts of a new generator, which the original model classifies as human.
NEW = [f"In sum, dear customer: {text}" for text in HUMAN[:45]]


@pytest.fixture(scope="module")
def export(classifier: Classifier, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adaptation") / "export"
    classifier.export(folder, sample)
    return folder


def load(folder: Path) -> Classifier:
    return Classifier.from_pretrained(folder, runtime="onnxruntime")


def recall(classifier: Classifier, texts: list[str]) -> float:
    return float(np.mean(classifier.predict(texts) == "fake"))


def test_ten_examples_raise_recall_without_more_false_positives(export: Path, sample: Path) -> None:
    model = load(export)
    model.set_operating_point(sample, max_fpr=0.05)
    before, flagged = recall(model, NEW[10:]), recall(model, HUMAN)
    report = model.adapt(NEW[:10], ["fake"] * 10)
    assert before < 0.5 < 0.9 < recall(model, NEW[10:])
    assert report.recall_before < 0.5 < report.recall_after
    assert (report.positives, report.negatives, report.references) == (10, 0, len(HUMAN))
    assert report.flagged_after <= report.flagged_before
    assert recall(model, HUMAN) <= flagged + 0.02  # references are stored in eight bits
    assert "recall on held-out examples" in report.to_text()
    assert model.runtime.endswith(", adapted")


def test_an_adapted_model_can_be_saved_and_adapted_again(export: Path, tmp_path: Path) -> None:
    model = load(export)
    model.adapt(NEW[:10], ["fake"] * 10)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(NEW), model.predict_proba(NEW))
    again.adapt(NEW[:20], ["fake"] * 20)
    fresh = load(export)
    fresh.adapt(NEW[:20], ["fake"] * 20)
    np.testing.assert_array_equal(again.predict_proba(NEW), fresh.predict_proba(NEW))
    with pytest.raises(DataError, match="contains no validation rows"):
        again.calibrate()


def test_negative_examples_and_custom_references_are_used(export: Path) -> None:
    model = load(export)
    report = model.adapt([*NEW[:10], *HUMAN[:5]], ["fake"] * 10 + ["real"] * 5, references=iter(HUMAN[5:]))
    assert (report.positives, report.negatives, report.references) == (10, 5, len(HUMAN) - 5)


def test_openvino_and_onnxruntime_adapt_alike(export: Path) -> None:
    models = [Classifier.from_pretrained(export, runtime=runtime, precision="fp32") for runtime in ("onnxruntime", "openvino")]
    for model in models:
        model.adapt(NEW[:10], ["fake"] * 10)
    np.testing.assert_allclose(models[0].predict_proba(NEW), models[1].predict_proba(NEW), atol=1e-3)


def test_references_are_stored_in_eight_bits(export: Path) -> None:
    content = (export / REFERENCES).read_bytes()
    references = from_file(content)
    assert safetensors.numpy.load(content)["embeddings"].dtype == np.int8
    assert len(references.odds) == len(references.words) == len(references.embeddings) == 160
    with pytest.raises(BundleError, match=r"references\.safetensors is malformed"):
        from_file(content[:100])
    with pytest.raises(BundleError, match=r"malformed: shapes \(3, 1\)"):
        adapted.from_file(safetensors.numpy.save({"weight": np.zeros((3, 1), np.float32), "bias": np.array(0.0, np.float32)}))


def test_errors_explain_why_adaptation_is_impossible(classifier: Classifier, export: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs in torch.*export\(\) it"):
        classifier.adapt(NEW[:10], ["fake"] * 10)
    model = load(export)
    with pytest.raises(DataError, match="two examples of 'fake', got 1"):
        model.adapt(NEW[:3], ["fake", "real", "real"])
    with pytest.raises(DataError, match="labels that the model was not trained on: 'bot'"):
        model.adapt(NEW[:2], ["fake", "bot"])
    with pytest.raises(DataError, match="at least 100 reference texts, got 3"):
        model.adapt(NEW[:2], ["fake", "fake"], references=["One.", "Two.", "Three."])
    classifier.export(tmp_path / "plain")
    with pytest.raises(DataError, match=r"contains no reference texts.*pass references="):
        load(tmp_path / "plain").adapt(NEW[:2], ["fake", "fake"])


def test_adaptation_imports_neither_torch_nor_scikit_learn(export: Path) -> None:
    code = (
        "import sys; from reviewguard import Classifier\n"
        f"model = Classifier.from_pretrained({str(export)!r}, runtime='onnxruntime')\n"
        f"model.adapt({NEW[:10]!r}, ['fake'] * 10)\n"
        "assert not {'torch', 'sklearn', 'scipy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
