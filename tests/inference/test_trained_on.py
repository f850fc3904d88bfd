"""A score on rows that a model was trained on is called what it is."""

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
    """Rows of the sample by the split that training gave them."""
    import hashlib

    sides = dict(line.split(",") for line in classifier._trained().read("split.csv").decode().splitlines()[1:])
    found: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    with open(sample, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            side = sides.get(hashlib.sha256(row["text"].encode()).hexdigest())
            if side:
                found[side].append((row["text"], row["label"]))
    return found


def test_evaluate_says_how_many_rows_were_trained_on(trained: Classifier, sample: Path, tmp_path: Path) -> None:
    rows = parts(trained, sample)
    trained.save(tmp_path / "saved")
    trained.export(tmp_path / "export")
    mixed = [*rows["test"], *[(text.replace(" ", "  "), label) for text, label in rows["train"][:7]]]
    for model in (trained, *(Classifier.from_pretrained(tmp_path / name) for name in ("saved", "export"))):
        assert model.evaluate(tuple(zip(*rows["test"], strict=True))).seen == 0
        report = model.evaluate(tuple(zip(*mixed, strict=True)))
        assert report.seen == 7, "white space is no difference to the model"
        assert "the model was trained on 7 of these texts, which flatters it" in report.to_text()
        assert json.loads(report.to_json())["seen"] == 7
    everything = tuple(zip(*rows["train"], strict=True))
    assert trained.evaluate(everything).seen == len(rows["train"])
    assert (tmp_path / "saved" / trained_on.FILE).stat().st_size < 4 * len(rows["train"]) + 100


def test_decisions_are_not_set_on_them_in_silence(trained: Classifier, sample: Path) -> None:
    rows = parts(trained, sample)["train"]
    with pytest.warns(UserWarning, match=rf"trained on {len(rows)} of {len(rows)} texts of \(texts, labels\)"):
        trained.calibrate(tuple(zip(*rows, strict=True)))


def test_a_model_of_an_earlier_release_does_not_say() -> None:
    report = Classifier.from_pretrained(Path(__file__).parents[1] / "golden" / "format-1" / "saved").evaluate(
        (["a kettle", "a pan"], ["fake", "real"])
    )
    assert report.seen is None
    assert "trained on" not in report.to_text()


def test_examples_of_an_adaptation_are_among_them() -> None:
    first = trained_on.from_file(trained_on.to_file(["a", "b", "a"])[trained_on.FILE])
    both = trained_on.from_file(trained_on.to_file(["b", "c"], first)[trained_on.FILE])
    assert (len(first), len(both)) == (2, 3)
    assert np.isin(first, both).all()


@pytest.mark.parametrize("tensors", [{}, {"sha256": np.zeros(2)}, {"sha256": np.zeros((1, 1), np.uint32)}])
def test_malformed_files(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match=re.escape("trained_on.safetensors is malformed")):
        trained_on.from_file(safetensors.numpy.save(tensors))
