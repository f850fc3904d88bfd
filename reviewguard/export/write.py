"""From a trained model to a folder that predicts without torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from reviewguard import references
from reviewguard.bundle import ADAPTER, HEAD, check_target, write_bundle
from reviewguard.data.reviews import Reviews, class_indices
from reviewguard.errors import ExportError
from reviewguard.export.gate import Judges, judge
from reviewguard.export.merge import is_adapted, merged_model
from reviewguard.export.onnx import export_onnx
from reviewguard.export.quantize import quantize
from reviewguard.export.report import ExportReport, Limits
from reviewguard.fitted import Fitted
from reviewguard.nn.model import NGRAMS
from reviewguard.runtime.choose import GRAPHS
from reviewguard.runtime.cores import available_cores
from reviewguard.runtime.onnx import OnnxScorer

REPORT: Final = "export_report.json"


def export(fitted: Fitted, folder: Path, validation: Reviews | None, *, int8: bool, limits: Limits) -> ExportReport:
    """Write a model as ONNX; see `reviewguard.Classifier.export`."""
    check_target(folder, never=HEAD)  # before the work, not after it
    texts, labels = ([], []) if validation is None else validation.require_complete(fitted.manifest.classes)
    if int8 and len(texts) < limits.texts:
        raise ExportError(
            f"int8 is judged on at least {limits.texts} labelled validation texts, and {len(texts)} were given; pass "
            "validation=... (command line: --validation), or lower the limit with limits=Limits(texts=...)"
        )
    # Adapters are merged first, so that what is compared with is what is exported.
    plain = replace(fitted, scorer=merged_model(fitted)) if is_adapted(fitted) else fitted
    judges = _judges(plain, texts, labels)
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / Path(GRAPHS["fp32"]).name
        export_onnx(plain, graph)
        graphs = {"fp32": judge(graph, list(Path(scratch).iterdir()), "fp32", plain, judges, limits)}
        if int8:
            small = graph.with_name(Path(GRAPHS["int8"]).name)
            quantize(graph, small)
            graphs["int8"] = judge(small, [small], "int8", plain, judges, limits)
            graph = small
        report = ExportReport(limits=limits, graphs=graphs)
        kept = {
            name: content for name, content in fitted.files.items() if not name.startswith((ADAPTER, "encoder/", HEAD, NGRAMS))
        }
        kept[REPORT] = msgspec.json.format(msgspec.json.encode(report), indent=1)
        kept["README.md"] = fitted.read("README.md") + b"\n" + report.to_markdown().encode()
        kept |= _references(plain, graph, texts, labels)
        # Other runtimes know nothing of the model's normalisation: their tokenizer brings it along.
        kept |= fitted.tokenizer.files(fitted.manifest.normalization)
        written = {f"onnx/{file.name}": file for file in Path(scratch).iterdir()}
        write_bundle(folder, fitted.manifest, {**kept, **written})
    return report


def _references(fitted: Fitted, graph: Path, texts: Sequence[str], labels: Sequence[str]) -> dict[str, bytes]:
    """What the export carries for `adapt`: validation texts of the negative class, as embeddings."""
    negatives = [text for text, label in zip(texts, labels, strict=True) if label != fitted.manifest.positive]
    if fitted.positive is None or not negatives:
        return {}
    scorer = OnnxScorer(graph, fitted.manifest.classes, available_cores())
    return references.to_file(fitted, scorer, negatives)


def _judges(fitted: Fitted, texts: Sequence[str], labels: Sequence[str]) -> Judges:
    logits, encoded = fitted.logits(texts, "judging torch")
    return Judges(texts, encoded, class_indices(labels, fitted.manifest.classes), logits)
