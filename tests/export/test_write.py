"""An export is written with a report if it matches the model. Otherwise nothing is written, and the error gives the reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError, ExportError
from reviewguard.export import gate, quantize, write
from reviewguard.export.report import Limits

LOOSE = Limits(texts=100, flips=0.05, f1=0.05)


def test_both_graphs_are_checked_and_written(classifier: Classifier, sample: Path, tmp_path: Path) -> None:
    report = classifier.export(tmp_path / "export", sample, int8=True, limits=LOOSE)
    fp32, int8 = report.graphs["fp32"], report.graphs["int8"]
    assert (fp32.texts, fp32.flips, fp32.f1) == (320, 0, 0)
    assert 0 < fp32.logits <= 1e-4 < int8.logits
    assert max(fp32.neighbours, int8.neighbours) < 1e-4
    assert int8.mib < 0.9 * fp32.mib  # nodes take up most of such a small graph
    written = json.loads((tmp_path / "export" / write.REPORT).read_text())
    assert written["graphs"]["int8"]["logits"] == int8.logits
    assert written["limits"]["flips"] == 0.05
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"| int8 | {int8.mib:.1f} |" in card
    for word in ("fp32: ", "int8: ", "change their label", "calibration error"):
        assert word in report.to_text()

    texts = [text for text in read(sample).texts if text]
    expected = classifier.predict(texts)
    by = {p: Classifier.from_pretrained(tmp_path / "export", runtime="onnxruntime", precision=p) for p in ("fp32", "int8")}
    assert int8.flips == int((by["int8"].predict(texts) != expected).sum())
    np.testing.assert_array_equal(by["fp32"].predict(texts), expected)


def test_without_validation_the_report_omits_labels(classifier: Classifier, tmp_path: Path) -> None:
    report = classifier.export(tmp_path / "export")
    assert set(report.graphs) == {"fp32"}
    assert (report.graphs["fp32"].texts, report.graphs["fp32"].f1) == (0, None)
    assert "change their label" not in report.to_text()
    assert not (tmp_path / "export" / "onnx" / "model_quantized.onnx").exists()


def test_int8_needs_enough_texts(classifier: Classifier, sample: Path, tmp_path: Path) -> None:
    for validation, given in ((None, 0), (sample, 320)):
        with pytest.raises(ExportError, match=f"at least 1000 labelled validation texts, got {given}"):
            classifier.export(tmp_path / "export", validation, int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(logits=0.0), "the fp32 graph differs from the model: a logit differs from torch by"),
        (Limits(neighbours=-1.0), "a probability changes by .* with the rest of its batch"),
    ],
)
def test_exceeding_a_limit_writes_nothing(classifier: Classifier, limits: Limits, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{message}(.|\n)*Nothing was written"):
        classifier.export(tmp_path / "export", limits=limits)
    assert not list(tmp_path.iterdir())


def test_exceeding_the_limit_of_f1_writes_nothing(classifier: Classifier, sample: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"F1 changes by [+-]\d\.\d\d points \(at most -100\)"):
        classifier.export(tmp_path / "export", sample, limits=Limits(f1=-1.0))
    assert not list(tmp_path.iterdir())


def test_texts_with_changed_labels_are_listed(
    classifier: Classifier, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than one bit per weight, the graph is computed, checked and refused."""
    real = quantize._scales
    monkeypatch.setattr(quantize, "_scales", lambda values, axis: 300 * real(values, axis))
    with pytest.raises(ExportError) as caught:
        classifier.export(tmp_path / "export", sample, int8=True, limits=Limits(texts=100))
    message = str(caught.value)
    assert "the int8 graph differs from the model" in message
    assert "of 320 texts change their label (at most 0.1 %)" in message
    named = [line for line in message.splitlines() if line.startswith("  row ")]
    assert 1 <= len(named) <= 5
    texts = read(sample).texts
    for line in named:
        row = int(line.split()[1].rstrip(":"))
        assert (texts[row] or "")[:20] in line
    assert not list(tmp_path.iterdir())


def test_a_graph_that_ignores_the_mask_is_refused(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known pitfall: the same tensor as both example inputs is traced as a single input."""
    real = torch.onnx.export

    def trapped(module, inputs, **settings):
        return real(module, (inputs[1], inputs[1]), **settings)

    monkeypatch.setattr(torch.onnx, "export", trapped)
    with pytest.raises(ExportError):
        classifier.export(tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_mixes_its_rows_is_refused(
    classifier: Classifier, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with per-batch quantisation: a text's probability depends on its batch."""

    class Mixing(gate.OnnxScorer):
        def logits(self, batch, *, alone=False):
            values = super().logits(batch, alone=alone)
            return values + 0.05 * values.mean(axis=0) * (len(values) > 1)

    monkeypatch.setattr(gate, "OnnxScorer", Mixing)
    with pytest.raises(ExportError, match=r"a probability changes by 0\.0"):
        classifier.export(tmp_path / "export", limits=Limits(logits=1.0))


def test_an_occupied_folder_is_detected_first(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(Exception, match="was not changed"):
        classifier.export(tmp_path)


def test_an_export_does_not_overwrite_its_model(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "model")
    loaded = Classifier.from_pretrained(tmp_path / "model")
    for model in (classifier, loaded):
        with pytest.raises(
            BundleError, match=r"model holds a model with head.safetensors, which would be lost, .*Choose another"
        ):
            model.export(tmp_path / "model")
    assert Classifier.from_pretrained(tmp_path / "model").runtime.startswith("torch")
    loaded.export(tmp_path / "export")
    loaded.export(tmp_path / "export")  # over an older export
