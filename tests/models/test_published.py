"""Trained decoders are saved as sequence classification models; other models are saved as plain encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers
from architectures import MAKERS, TEXTS

from reviewguard import Classifier

# White space that normalisation removes, and a text that is truncated.
NEW = [*TEXTS, "the  lid rattles   a bit", "a kettle " * 40]
SETTINGS = {"loop__epochs": 1, "loop__micro_batch_size": 8, "loop__batch_size": 8, "loop__precision": "fp32", "data__split": ""}


def fitted(name: str, folder: Path, **settings: object) -> Classifier:
    config = MAKERS[name][0](folder)
    classifier = Classifier(
        "decoder",
        encoder__repo=config.repo,
        encoder__max_length=config.max_length,
        encoder__pooling=config.pooling,
        lora__r=4,
        **SETTINGS,
        **settings,
    )
    return classifier.fit(TEXTS * 8, ["fake", "real", "other"] * 8)


@pytest.mark.parametrize(("name", "adapter"), [("qwen3", "none"), ("llama", "lora"), ("gemma3", "none")])
def test_decoder_loads_in_a_transformers_pipeline(name: str, adapter: str, tmp_path: Path) -> None:
    classifier = fitted(name, tmp_path / "base", adapter=adapter)
    if adapter == "lora":
        classifier = classifier.merge(NEW)
    classifier.save(tmp_path / "model")
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "model" / "encoder"), device="cpu")
    answers = classify(NEW, top_k=None, truncation=True, batch_size=2)
    scores = [
        [next(item["score"] for item in answer if item["label"] == label) for label in classifier.classes_] for answer in answers
    ]
    np.testing.assert_allclose(scores, classifier.predict_proba(NEW), atol=1e-5)
    # The saved model can be loaded again.
    loaded = Classifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(NEW), classifier.predict_proba(NEW), atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_other_architectures_are_saved_as_encoders(name: str, tmp_path: Path) -> None:
    fitted(name, tmp_path / "base", adapter="none").save(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model" / "encoder")
    assert not any("SequenceClassification" in name for name in config.architectures)
