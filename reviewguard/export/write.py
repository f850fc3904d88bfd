"""Export a trained model to a folder that predicts without torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from reviewguard.bundle.folder import check_target, write_bundle
from reviewguard.bundle.manifest import HEAD
from reviewguard.data.reviews import Reviews, class_indices
from reviewguard.errors import ExportError
from reviewguard.export.gate import Judges, judge
from reviewguard.export.merge import is_adapted, merged_model
from reviewguard.export.onnx import export_onnx
from reviewguard.export.quantize import quantize
from reviewguard.export.report import ExportReport, Limits
from reviewguard.inference import references
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.engines.onnx import OnnxScorer
from reviewguard.inference.engines.select import GRAPHS
from reviewguard.inference.model import TrainedModel
from reviewguard.models.files import WEIGHTS

REPORT: Final = "export_report.json"


def export(trained: TrainedModel, folder: Path, validation: Reviews | None, *, int8: bool, limits: Limits) -> ExportReport:
    """Write a model as ONNX. See `reviewguard.Classifier.export`."""
    check_target(folder, never=HEAD)  # fail before the work is done
    texts, labels = ([], []) if validation is None else validation.require_complete(trained.manifest.classes)
    if int8 and len(texts) < limits.texts:
        raise ExportError(
            f"int8 requires at least {limits.texts} labelled validation texts, got {len(texts)}; pass "
            "validation=... (command line: --validation), or lower the limit with limits=Limits(texts=...)"
        )
    # Merge adapters first, so that the graph is compared with the model that is exported.
    plain = replace(trained, scorer=merged_model(trained)) if is_adapted(trained) else trained
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
        files = {name: content for name, content in trained.files.items() if not name.startswith(WEIGHTS)}
        files[REPORT] = msgspec.json.format(msgspec.json.encode(report), indent=1)
        files["README.md"] = trained.read("README.md") + b"\n" + report.to_markdown().encode()
        files |= _references(plain, graph, texts, labels)
        # Other runtimes do not apply the model's normalisation, so the tokenizer includes it.
        files |= trained.tokenizer.files(trained.manifest.normalization)
        graph_files = {f"onnx/{file.name}": file for file in Path(scratch).iterdir()}
        write_bundle(folder, trained.manifest, {**files, **graph_files})
    return report


def _references(trained: TrainedModel, graph: Path, texts: Sequence[str], labels: Sequence[str]) -> dict[str, bytes]:
    """Reference texts for `adapt`: validation texts of the negative class, stored as embeddings."""
    negatives = [text for text, label in zip(texts, labels, strict=True) if label != trained.manifest.positive]
    if trained.positive is None or not negatives:
        return {}
    scorer = OnnxScorer(graph, trained.manifest.classes, available_cores())
    return references.to_file(trained, scorer, negatives)


def _judges(trained: TrainedModel, texts: Sequence[str], labels: Sequence[str]) -> Judges:
    logits, encoded = trained.logits(texts, "judging torch")
    return Judges(texts, encoded, class_indices(labels, trained.manifest.classes), logits)
