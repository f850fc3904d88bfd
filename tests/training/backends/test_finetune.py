"""End-to-end fine-tuning of tiny models of several architectures, and loop settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from architectures import MAKERS, make_bert, make_t5

from reviewguard import Classifier
from reviewguard.errors import ConfigError, TrainingError
from reviewguard.export import onnx

LABELS = ["fake", "real"]
TEXTS = ["a kettle that boils", "the lid rattles a bit", "it is fine and I would buy it again", "no </s> kettle"] * 4


def _settings(folder: Path, encoder: object, adapter: str, **loop: object) -> dict[str, object]:
    return {
        "backend": "finetune",
        "adapter": adapter,
        "encoder": {"repo": str(folder), "max_length": 32, "pooling": encoder.pooling},
        "lora": {"r": 4, "dropout": 0.1},
        "loop": {"epochs": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3, **loop},
    }


def _fit(settings: dict[str, object]) -> Classifier:
    return Classifier(settings).fit(TEXTS, LABELS * (len(TEXTS) // 2))


@pytest.mark.parametrize("architecture", MAKERS)
def test_trained_saved_merged_exported(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = MAKERS[architecture][0](tmp_path)
    if architecture == "mpnet":
        with pytest.raises(ConfigError, match="does not support gradient checkpointing"):
            _fit(_settings(tmp_path, encoder, "qlora", gradient_checkpointing=True))
    classifier = _fit(_settings(tmp_path, encoder, "qlora", gradient_checkpointing=architecture != "mpnet"))
    expected = classifier.predict_proba(TEXTS)
    classifier.save(tmp_path / "model")  # verifies that the saved model gives the same logits
    np.testing.assert_allclose(Classifier.from_pretrained(tmp_path / "model").predict_proba(TEXTS), expected, atol=1e-5)
    assert (tmp_path / "model" / "adapter" / "adapter_model.safetensors").is_file()
    report = classifier.merge(TEXTS).manifest.merged
    assert report is not None
    assert report["trained"]["logit"] < 1e-3
    assert report["trained"]["flips"] == 0
    assert classifier.export(tmp_path / "onnx").graphs["fp32"].logits <= 1e-4
    exported = Classifier.from_pretrained(tmp_path / "onnx")
    np.testing.assert_allclose(exported.predict_proba(TEXTS), expected, atol=1e-3)
    # A literal end-of-text token affects only its own review.
    np.testing.assert_allclose(
        exported.predict_proba(["no </s> kettle", TEXTS[1]])[1], exported.predict_proba(TEXTS)[1], atol=1e-5
    )


def test_large_graph_has_external_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    classifier = _fit(_settings(tmp_path, make_t5(tmp_path), "none"))
    monkeypatch.setattr(onnx, "INLINE_BYTES", 1000)
    classifier.export(tmp_path / "onnx")
    files = json.loads((tmp_path / "onnx" / "reviewguard.json").read_text())["files"]
    assert files["onnx/model.onnx_data"]["size"] > files["onnx/model.onnx"]["size"]
    exported = Classifier.from_pretrained(tmp_path / "onnx")
    np.testing.assert_allclose(exported.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-4)


def test_bundle_of_a_sharded_local_encoder_contains_only_the_new_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = make_bert(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    classifier = _fit(_settings(tmp_path, encoder, "none"))
    classifier.save(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model" / "encoder").glob("*.safetensors*")] == ["model.safetensors"]
    loaded = Classifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-5)


def test_bf16_keeps_the_weights_in_fp32(tmp_path: Path) -> None:
    encoder = make_bert(tmp_path)
    for adapter in ("none", "qlora"):
        classifier = _fit(_settings(tmp_path, encoder, adapter, precision="bf16"))
        model = classifier._model.scorer
        trained = [p for name, p in model.named_parameters() if "lora_" in name or adapter == "none"]
        assert trained
        assert {p.dtype for p in trained} == {torch.float32}
        classifier.save(tmp_path / adapter)


def test_micro_batches_and_gradient_checkpointing_do_not_change_the_result(tmp_path: Path) -> None:
    """Without dropout, they only change memory."""
    encoder = make_bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))
    outcomes = []
    for loop in ({}, {"micro_batch_size": 2}, {"micro_batch_size": 8}, {"gradient_checkpointing": True}):
        settings = _settings(tmp_path, encoder, "none", dropout=0.0, label_smoothing=0.1, **loop)
        outcomes.append(Classifier(settings).fit(TEXTS, (["fake"] * 3 + ["real"]) * 4).predict_proba(TEXTS))
    for outcome in outcomes[1:]:
        np.testing.assert_allclose(outcome, outcomes[0], atol=1e-5)


def test_class_weights_change_the_loss(tmp_path: Path) -> None:
    encoder, labels = make_bert(tmp_path), (["fake"] * 7 + ["real"]) * 2
    shares = {}
    for weight in ("balanced", "none"):
        classifier = Classifier(_settings(tmp_path, encoder, "lora", class_weight=weight, epochs=8)).fit(TEXTS, labels)
        shares[weight] = classifier.predict_proba(TEXTS)[:, 0].mean()
    assert shares["balanced"] < shares["none"] - 0.05


def test_seed_is_reproducible_and_global_generators_are_unchanged(tmp_path: Path) -> None:
    encoder = make_bert(tmp_path)
    torch.manual_seed(5)
    np.random.seed(5)
    one = _fit(_settings(tmp_path, encoder, "lora")).predict_proba(TEXTS)
    drawn = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    assert drawn == (torch.rand(1).item(), np.random.rand())
    two = _fit(_settings(tmp_path, encoder, "lora")).predict_proba(TEXTS)
    np.testing.assert_array_equal(one, two)
    other = _fit({**_settings(tmp_path, encoder, "lora"), "seed": 7}).predict_proba(TEXTS)
    assert not np.allclose(one, other)


def test_model_soup_is_the_mean_of_its_runs(tmp_path: Path) -> None:
    settings = _settings(tmp_path, make_bert(tmp_path), "none")
    weights = [dict(_fit({**settings, "seed": seed})._model.scorer.named_parameters()) for seed in (42, 43)]
    classifier = _fit({**settings, "model_soup": 2})
    for name, parameter in classifier._model.scorer.named_parameters():
        one, two = (each[name] for each in weights)
        torch.testing.assert_close(parameter, (one + two) / 2)
        assert name.startswith("encoder.transformer.embeddings.token_type") or not torch.equal(one, two)
    classifier.save(tmp_path / "model")
    loaded = Classifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-5)


def test_incompatible_settings_are_rejected(tmp_path: Path) -> None:
    encoder = make_bert(tmp_path)
    with pytest.raises(
        ConfigError, match="model_soup is 2 and adapter is 'lora': adapters with different seeds cannot be averaged"
    ):
        _fit({**_settings(tmp_path, encoder, "lora"), "model_soup": 2})
    with pytest.raises(ConfigError, match=r"loop\.batch_size 8 is not a multiple of loop\.micro_batch_size 3 times 1 process"):
        _fit(_settings(tmp_path, encoder, "none", micro_batch_size=3))
    with_dense = _settings(tmp_path, encoder, "none")
    with_dense["encoder"] = {"repo": str(tmp_path), "dense": "2_Dense"}
    with pytest.raises(ConfigError, match="fine-tuning replaces it by its own head"):
        _fit(with_dense)


def test_metrics_reach_a_logger(tmp_path: Path) -> None:
    settings = _settings(tmp_path, make_bert(tmp_path), "none", report_to=["tensorboard"], epochs=12)
    rows = (TEXTS, LABELS * (len(TEXTS) // 2))
    Classifier({**settings, "data": {"min_tokens": 0}}).train(rows, validation=rows, run_dir=tmp_path / "run")
    (events,) = (tmp_path / "run" / "runs").rglob("events.out.tfevents.*")
    content = events.read_bytes()
    for name in (b"train/loss", b"train/learning_rate", b"eval/f1"):
        assert name in content


def test_missing_logger_is_reported(tmp_path: Path) -> None:
    encoder = make_bert(tmp_path)
    with pytest.raises(ConfigError, match=r"loop\.report_to names wandb, which is not installed; run: pip install wandb"):
        _fit(_settings(tmp_path, encoder, "none", report_to=["wandb"]))
    with pytest.raises(ConfigError, match="tensorbord"):
        _fit(_settings(tmp_path, encoder, "none", report_to=["tensorbord"]))


def test_non_finite_loss_stops_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+; lower loop\.learning_rate"):
        _fit(_settings(tmp_path, make_bert(tmp_path), "none", learning_rate=1e30, max_grad_norm=0.0, warmup=0.0, epochs=10))
