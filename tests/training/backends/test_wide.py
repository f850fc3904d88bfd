"""N-grams combined with an encoder: the model computes what scikit-learn fitted, and accuracy improves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reviewguard import Classifier
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError, ConfigError, DataError
from reviewguard.models.encoder import load_encoder
from reviewguard.models.heads import LinearHead
from reviewguard.models.ngrams import type_token_ratio
from reviewguard.models.text_model import TextModel
from reviewguard.training.backends import _wide
from reviewguard.training.finetuning.batches import Rows

LOOP = {"loop__epochs": 1, "loop__learning_rate": 1e-3}


@pytest.mark.parametrize("classes", [2, 3])
def test_combined_head_is_linear_in_logits_and_scores(classes: int, tiny_settings: dict[str, object], sample: Path) -> None:
    reviews = read(sample)
    loaded = load_encoder(Classifier("minilm-finetune", **tiny_settings)._recipe().encoder)
    encoded = loaded.tokenizer.encode([text or "" for text in reviews.texts])
    books = np.array([category == "books" for category in reviews.columns["category"]])
    y = np.where(books & (classes == 3), 2, np.array([label == "fake" for label in reviews.labels]))
    train, validation = Rows(encoded[::2], y[::2]), Rows(encoded[1::2], y[1::2])
    torch.manual_seed(0)
    model = TextModel(loaded.encoder, LinearHead(torch.randn(classes, loaded.encoder.width), torch.randn(classes))).eval()
    logits = np.concatenate([model.logits(loaded.tokenizer.pad([item])) for item in validation.encoded])
    _wide.widen(model, train, validation, logits, 2048, 0)
    assert model.bag is not None
    assert model.bag.weight.shape == (2048, 1 if classes == 2 else 3)
    scores = np.asarray(_wide._counts(validation, 2048) @ model.bag.weight.detach().numpy())
    ratios = np.concatenate([type_token_ratio(*text) for text in _wide._texts(validation)])
    scores += ratios @ model.bag.variety.detach().numpy()
    separate = np.concatenate([logits, scores], axis=1)
    combined = np.concatenate([model.logits(loaded.tokenizer.pad([item])) for item in validation.encoded])
    # The combined head is a linear function of both, so least squares leaves no residual.
    design = np.column_stack([separate, np.ones(len(separate))])
    solution = np.linalg.lstsq(design, combined, rcond=None)[0]
    np.testing.assert_allclose(design @ solution, combined, atol=1e-4)
    assert (combined.argmax(axis=1) == validation.y).mean() > (logits.argmax(axis=1) == validation.y).mean() + 0.1


def test_class_without_validation_rows_is_rejected(tiny_settings: dict[str, object]) -> None:
    loaded = load_encoder(Classifier("minilm-finetune", **tiny_settings)._recipe().encoder)
    rows = Rows(loaded.tokenizer.encode(["a kettle", "the pan"]), np.array([0, 0]))
    model = TextModel(loaded.encoder, LinearHead(torch.zeros(2, loaded.encoder.width), torch.zeros(2)))
    with pytest.raises(DataError, match="1 of 2 classes or subclasses have no validation row"):
        _wide.widen(model, rows, rows, np.zeros((2, 2), dtype=np.float32), 64, 0)


def test_ngrams_need_validation_rows(tiny_settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="set ngrams=0"):
        Classifier("minilm-finetune", **tiny_settings, **LOOP, ngrams=64).fit(["a", "b"] * 8, ["fake", "real"] * 8)
    with pytest.raises(ConfigError, match="<= 262144"):
        Classifier("minilm-finetune", ngrams=2**20)._recipe()


def test_damaged_bag_is_rejected(tiny_settings: dict[str, object], sample: Path, tmp_path: Path) -> None:
    classifier = Classifier("minilm-finetune", **tiny_settings, **LOOP, ngrams=64)
    classifier.train(sample, run_dir=tmp_path / "run")
    classifier._trained().files["ngrams.safetensors"] = b"no tensors"
    with pytest.raises(BundleError, match=r"ngrams.safetensors cannot be read"):
        classifier.save(tmp_path / "saved")
