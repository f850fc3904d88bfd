"""Models and graphs that tests export, quantise and judge."""

from __future__ import annotations

from pathlib import Path

import msgspec
from manifests import PLAIN

from reviewguard import Classifier
from reviewguard.data.tokens import Tokenizer
from reviewguard.inference.model import TrainedModel
from reviewguard.models.text_model import TextModel

TOKENIZER = b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'


def as_fitted(model: TextModel) -> TrainedModel:
    """A bare model in the form that exports start from."""
    manifest = msgspec.structs.replace(PLAIN, classes=["a", "b"], positive="a", normalization="none", max_length=64)
    return TrainedModel(manifest, Tokenizer(TOKENIZER, b"{}", 64), model, {})


def int8_of(classifier: Classifier, folder: Path, rows: tuple[list[str], list[str]]) -> Path:
    """Export with a second graph in int8, whatever it changes on so few rows."""
    from reviewguard.export.report import Limits

    classifier.export(folder, rows, int8=True, limits=Limits(texts=1, flips=1, f1=1))
    return folder
