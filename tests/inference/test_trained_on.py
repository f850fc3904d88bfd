"""Evaluation reports how many of the rows were in the training data."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from reviewguard import Classifier
from reviewguard.errors import BundleError
from reviewguard.inference import trained_on


@pytest.fixture(scope="module")
def trained(tiny_settings: dict[str, object], sample: Path) -> Classifier:
    classifier = Classifier("minilm-logreg", **tiny_settings)
    classifier.train(sample)
    return classifier


def parts(classifier: Classifier, sample: Path) -> dict[str, list[tuple[str, str]]]:
    """Rows of the sample by the split that training assigned."""
    import hashlib

    sides = dict(line.split(",") for line in classifier._trained().read("split.csv").decode().splitlines()[1:])
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    with open(sample, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            side = sides.get(hashlib.sha256(row["text"].encode()).hexdigest())
            if side:
                rows[side].append((row["text"], row["label"]))
    return rows


def test_evaluate_reports_how_many_rows_were_trained_on(trained: Classifier, sample: Path, tmp_path: Path) -> None:
    rows = parts(trained, sample)
    trained.save(tmp_path / "saved")
    trained.export(tmp_path / "export")
    mixed = [*rows["test"], *[(text.replace(" ", "  "), label) for text, label in rows["train"][:7]]]
    for model in (trained, *(Classifier.from_pretrained(tmp_path / name) for name in ("saved", "export"))):
        assert model.evaluate(tuple(zip(*rows["test"], strict=True))).seen == 0
        report = model.evaluate(tuple(zip(*mixed, strict=True)))
        assert report.seen == 7, "differences in white space do not matter"
        assert "the model was trained on 7 of these texts, so scores are optimistic" in report.to_text()
        assert json.loads(report.to_json())["seen"] == 7
    everything = tuple(zip(*rows["train"], strict=True))
    assert trained.evaluate(everything).seen == len(rows["train"])
    assert (tmp_path / "saved" / trained_on.FILE).stat().st_size < 4 * len(rows["train"]) + 100


def test_setting_decisions_on_training_rows_warns(trained: Classifier, sample: Path) -> None:
    rows = parts(trained, sample)["train"]
    with pytest.warns(UserWarning, match=rf"trained on {len(rows)} of {len(rows)} texts of \(texts, labels\)"):
        trained.calibrate(tuple(zip(*rows, strict=True)))


def test_models_of_earlier_releases_do_not_report_it() -> None:
    report = Classifier.from_pretrained(Path(__file__).parents[1] / "golden" / "format-1" / "saved").evaluate(
        (["a kettle", "a pan"], ["fake", "real"])
    )
    assert report.seen is None
    assert "trained on" not in report.to_text()


def test_hashes_of_adaptation_examples_are_added() -> None:
    first = trained_on.from_file(trained_on.to_file(["a", "b", "a"])[trained_on.FILE])
    both = trained_on.from_file(trained_on.to_file(["b", "c"], first)[trained_on.FILE])
    assert (len(first), len(both)) == (2, 3)
    assert np.isin(first, both).all()


@pytest.mark.parametrize("tensors", [{}, {"sha256": np.zeros(2)}, {"sha256": np.zeros((1, 1), np.uint32)}])
def test_malformed_files(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match=re.escape("trained_on.safetensors is malformed")):
        trained_on.from_file(safetensors.numpy.save(tensors))
