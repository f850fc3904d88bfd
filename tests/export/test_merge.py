"""Adapters are merged into the weights, and a report measures the change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError, ExportError

LOOP = {"loop__epochs": 2, "loop__learning_rate": 1e-2}


@pytest.fixture(scope="module")
def adapted(tiny_settings: dict[str, object], sample: Path) -> Classifier:
    """A QLoRA model with the tiny encoder."""
    reviews = read(sample)
    return Classifier("minilm-qlora", **tiny_settings, **LOOP).fit(reviews.texts[:160], reviews.labels[:160])


@pytest.fixture(scope="module")
def texts(sample: Path) -> list[str]:
    return [text for text in read(sample).texts[160:] if text]


def test_both_bases_are_reported_and_the_trained_one_is_closer(adapted: Classifier, texts: list[str]) -> None:
    before = adapted.predict_proba(texts)
    for base in ("trained", "original"):
        merged = adapted.merge(texts, base)
        report = merged.manifest.merged
        assert report is not None
        assert (report["base"], report["texts"]) == (base, len(texts))
        assert report["trained"]["logit"] < 1e-4 < report["original"]["logit"]
        assert report["trained"]["flips"] == 0
        flips = int((merged.predict(texts) != adapted.predict(texts)).sum())
        assert flips == report[base]["flips"]
    np.testing.assert_array_equal(adapted.predict_proba(texts), before, "merging leaves the model as it was")


def test_a_merged_model_has_no_adapters(adapted: Classifier, texts: list[str], tmp_path: Path) -> None:
    merged = adapted.merge(texts)
    merged.save(tmp_path / "merged")
    names = {path.relative_to(tmp_path / "merged").as_posix() for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith("adapter/")]
    assert {"encoder/model.safetensors", "encoder/config.json", "encoder/tokenizer.json", "head.safetensors"} <= names
    loaded = Classifier.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(loaded.predict_proba(texts), merged.predict_proba(texts), atol=1e-5)
    assert loaded.manifest.merged == merged.manifest.merged
    assert loaded.export(tmp_path / "onnx").graphs["fp32"].logits <= 1e-4
    exported = Classifier.from_pretrained(tmp_path / "onnx")
    np.testing.assert_allclose(exported.predict_proba(texts), adapted.predict_proba(texts), atol=1e-4)
    with pytest.raises(ExportError, match="no adapters to merge"):
        loaded.merge(texts)


def test_training_can_continue_from_merged_weights(
    adapted: Classifier, texts: list[str], tiny_settings: dict[str, object], sample: Path, tmp_path: Path
) -> None:
    adapted.merge(texts).save(tmp_path / "merged")
    reviews = read(sample)
    settings = {**tiny_settings, "encoder__repo": str(tmp_path / "merged" / "encoder"), "loop__epochs": 1}
    further = Classifier("minilm-finetune", **settings).fit(reviews.texts[:32], reviews.labels[:32])
    assert further.predict(texts).shape == (len(texts),)


def test_a_merged_classifier_can_be_trained_again(adapted: Classifier, texts: list[str], sample: Path) -> None:
    merged, reviews = adapted.merge(texts), read(sample)
    assert merged.get_params(deep=False) == adapted.get_params(deep=False)
    before = adapted.predict_proba(texts)
    merged.fit(reviews.texts[:32], reviews.labels[:32])
    np.testing.assert_array_equal(adapted.predict_proba(texts), before)


def test_a_saved_model_can_be_merged(adapted: Classifier, texts: list[str], tmp_path: Path) -> None:
    adapted.save(tmp_path / "model")
    reports = [of.merge(texts).manifest.merged for of in (adapted, Classifier.from_pretrained(tmp_path / "model"))]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0]["original"]["logit"] == pytest.approx(reports[1]["original"]["logit"], abs=1e-4)


def test_invalid_merges_are_refused(
    adapted: Classifier, texts: list[str], tiny_settings: dict[str, object], sample: Path
) -> None:
    with pytest.raises(ExportError, match="pass some, such as your validation texts"):
        adapted.merge([])
    reviews = read(sample)
    plain = Classifier("minilm-logreg", **tiny_settings).fit(reviews.texts, reviews.labels)
    with pytest.raises(ExportError, match="adapter=lora or adapter=qlora"):
        plain.merge(texts)


def test_a_merged_model_does_not_overwrite_its_adapters(adapted: Classifier, texts: list[str], tmp_path: Path) -> None:
    adapted.save(tmp_path / "model")
    with pytest.raises(BundleError, match=r"model holds a model with adapter/adapter_config.json, which would be lost"):
        adapted.merge(texts).save(tmp_path / "model")
    Classifier.from_pretrained(tmp_path / "model").merge(texts)
