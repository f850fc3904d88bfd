"""Adapters on every architecture: attach, save, load and merge."""

from __future__ import annotations

import copy
from pathlib import Path

import bitsandbytes
import numpy as np
import pytest
import torch
import transformers
from architectures import MAKERS, TEXTS, make_bert, make_t5
from torch import nn

from reviewguard.config import EncoderConfig, LoraConfig
from reviewguard.errors import BundleError, ConfigError
from reviewguard.models import lora
from reviewguard.models.encoder import LoadedEncoder, load_encoder
from reviewguard.models.text_model import Encoder, run


@pytest.fixture(scope="module", params=MAKERS)
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncoderConfig, LoraConfig]:
    """A tiny random model of each architecture, with adapter settings."""
    make, targets = MAKERS[request.param]
    torch.manual_seed(0)
    return make(tmp_path_factory.mktemp(request.param)), LoraConfig(r=4, alpha=8, target_modules=targets)


def _loaded(config: EncoderConfig, four_bit: bool) -> LoadedEncoder:
    return load_encoder(config, None, torch.float32 if four_bit else None)


def _randomise(encoder: Encoder) -> None:
    """Randomise the adapters: new adapters have no effect."""
    torch.manual_seed(1)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)


def _vectors(loaded: LoadedEncoder, encoder: Encoder | None = None) -> np.ndarray:
    return run(encoder or loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode(TEXTS)))


@pytest.mark.parametrize("four_bit", [False, True], ids=["fp32", "nf4"])
def test_saved_loaded_and_merged(architecture: tuple[EncoderConfig, LoraConfig], four_bit: bool) -> None:
    config, settings = architecture
    loaded = _loaded(config, four_bit)
    plain = _vectors(loaded)
    assert not np.allclose(plain[0], plain[1])
    lora.attach(loaded.encoder, settings, loaded.config)
    np.testing.assert_array_equal(_vectors(loaded), plain)
    assert {name.split(".")[-3] for name, p in loaded.encoder.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    _randomise(loaded.encoder)
    adapted = _vectors(loaded)
    assert not np.allclose(adapted, plain, atol=1e-3)

    reloaded = _loaded(config, four_bit)
    lora.load_adapter(reloaded.encoder, settings, reloaded.config, lora.adapter_files(loaded.encoder)[lora.WEIGHTS])
    np.testing.assert_allclose(_vectors(reloaded), adapted, atol=1e-5)

    merged = copy.deepcopy(loaded.encoder)
    lora.merge(merged)
    np.testing.assert_allclose(_vectors(loaded, merged), adapted, atol=1e-4)
    np.testing.assert_array_equal(_vectors(loaded), adapted)
    assert not any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in merged.modules())
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


def test_padding_and_other_texts_have_no_effect(architecture: tuple[EncoderConfig, LoraConfig]) -> None:
    loaded = _loaded(architecture[0], four_bit=False)
    together = _vectors(loaded)
    alone = [run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode([text])))[0] for text in TEXTS]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@pytest.mark.parametrize("four_bit", [False, True], ids=["fp32", "nf4"])
def test_evaluation_between_steps_does_not_change_gradients(
    architecture: tuple[EncoderConfig, LoraConfig], four_bit: bool
) -> None:
    """On CPUs with AVX512-BF16, bitsandbytes repacks weights for inference; later gradients are wrong or missing."""

    def gradients(evaluate: bool) -> dict[str, torch.Tensor]:
        loaded = _loaded(architecture[0], four_bit)
        torch.manual_seed(0)
        lora.attach(loaded.encoder, architecture[1], loaded.config)
        _randomise(loaded.encoder)
        encoder = loaded.encoder.eval()  # no dropout, so that both runs are deterministic
        batch = {name: torch.from_numpy(v) for name, v in loaded.tokenizer.pad(loaded.tokenizer.encode(TEXTS)).items()}
        encoder(**batch).square().sum().backward()
        if evaluate:
            _vectors(loaded)
            with torch.no_grad():
                encoder(**batch)
        encoder(**batch).square().sum().backward()
        return {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad and p.grad is not None}

    without, between = gradients(evaluate=False), gradients(evaluate=True)
    assert without.keys() == between.keys()
    assert without
    for name, gradient in without.items():
        assert torch.equal(gradient, between[name]), name
        assert gradient.abs().sum() > 0, name


def test_four_bit_weights_are_never_repacked(architecture: tuple[EncoderConfig, LoraConfig]) -> None:
    layers = [m for m in _loaded(architecture[0], four_bit=True).encoder.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert {layer.weight.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)


def test_unknown_target_is_reported_with_the_available_ones(architecture: tuple[EncoderConfig, LoraConfig]) -> None:
    config, settings = architecture
    for targets in (("qkv_proj",), (*settings.target_modules, "qkv_proj")):
        with pytest.raises(
            ConfigError, match=r"names 'qkv_proj', which is not a linear layer of this model;.*Allowed: "
        ) as raised:
            lora.attach(_loaded(config, four_bit=False).encoder, LoraConfig(target_modules=tuple(targets)), config)
        assert all(target in str(raised.value) for target in settings.target_modules)


def test_target_missing_in_one_layer_is_rejected(tmp_path: Path) -> None:
    encoder = _loaded(make_bert(tmp_path), four_bit=False).encoder
    encoder.transformer.encoder.layer[1].attention.self.query = nn.Identity()
    with pytest.raises(
        ConfigError, match=r"'query', which is missing in layer 1 of encoder\.layer: only 1 of its 2 layers have it.*key, value"
    ):
        lora.attach(encoder, LoraConfig(target_modules=("query",)), EncoderConfig(repo=str(tmp_path)))


def test_every_linear_layer(architecture: tuple[EncoderConfig, LoraConfig]) -> None:
    encoder = _loaded(architecture[0], four_bit=False).encoder
    linear = sum(isinstance(module, nn.Linear) for module in encoder.modules())
    model = lora.attach(encoder, LoraConfig(r=2, target_modules="all-linear"), architecture[0])
    assert len(model.targeted_module_names) == linear


def test_rank_stabilised_adapters_scale_by_the_square_root_of_their_rank(tmp_path: Path) -> None:
    config = make_bert(tmp_path)
    scales = []
    for stabilised in (False, True):
        settings = LoraConfig(r=16, alpha=32, target_modules=("query",), rank_stabilized=stabilised)
        model = lora.attach(_loaded(config, four_bit=False).encoder, settings, config)
        scales.append(model.base_model.model.encoder.layer[0].attention.self.query.scaling["default"])
    assert scales == [2.0, 8.0]


def test_adapters_of_another_recipe_are_rejected(tmp_path: Path) -> None:
    config = make_bert(tmp_path)
    loaded = _loaded(config, four_bit=False)
    lora.attach(loaded.encoder, LoraConfig(r=4, target_modules=("query",)), config)
    weights = lora.adapter_files(loaded.encoder)[lora.WEIGHTS]
    for settings in (LoraConfig(r=8, target_modules=("query",)), LoraConfig(r=4, target_modules=("query", "key"))):
        with pytest.raises(
            BundleError, match=r"does not match its recipe: .* tensors are missing, unexpected or of the wrong shape"
        ):
            lora.load_adapter(_loaded(config, four_bit=False).encoder, settings, config, weights)
    with pytest.raises(BundleError, match="does not match its recipe"):
        lora.load_adapter(_loaded(config, four_bit=False).encoder, LoraConfig(r=4, target_modules=("query",)), config, b"junk")


def test_end_of_text_token_in_a_review_affects_only_that_review(tmp_path: Path) -> None:
    """T5ForSequenceClassification pools at the last end-of-text token, wherever it came from."""
    torch.manual_seed(0)
    loaded = _loaded(make_t5(tmp_path), four_bit=False)
    encode = loaded.tokenizer.encode
    texts = ["the lid </s> rattles </s>", TEXTS[0]]
    assert [item.ids.count(1) for item in encode(texts)] == [1, 1]
    together = run(loaded.encoder, loaded.tokenizer.pad(encode(texts)))
    alone = run(loaded.encoder, loaded.tokenizer.pad(encode(texts[1:])))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_pooling_matches_transformers(tmp_path: Path) -> None:
    """Reference: the decoder state that T5ForSequenceClassification passes to its head."""
    torch.manual_seed(0)
    loaded = _loaded(make_t5(tmp_path), four_bit=False)
    batch = {name: torch.from_numpy(v) for name, v in loaded.tokenizer.pad(loaded.tokenizer.encode(TEXTS)).items()}
    reference = transformers.T5ForSequenceClassification(loaded.encoder.config).eval()
    reference.transformer = loaded.encoder.transformer
    captured = []
    reference.classification_head.register_forward_hook(lambda module, inputs, output: captured.append(inputs[0]))
    with torch.no_grad():
        reference(**batch)
    vectors = _vectors(loaded)
    states = captured[0].reshape(-1, vectors.shape[1]).numpy()
    assert all(np.isclose(states, vector, atol=1e-5).all(axis=1).any() for vector in vectors)
