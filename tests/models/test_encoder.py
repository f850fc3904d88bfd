"""Encoder outputs against references, and checkpoints that must be rejected."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reviewguard.config import EncoderConfig, decode, load_preset
from reviewguard.data.tokens import Tokenizer
from reviewguard.errors import EncoderError
from reviewguard.models.encoder import load_encoder, read_config
from reviewguard.models.text_model import run
from reviewguard.models.transformer import TransformerEncoder

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the reference outputs of Stella are not available")


def stella_cases() -> list[str]:
    if not FIXTURES.is_dir():
        return ["absent"]
    with np.load(FIXTURES / "stella_tiny" / "expected.npz") as expected:
        return sorted({name.rsplit(".", 1)[0] for name in expected.files})


@pytest.fixture(scope="module")
def stella(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """The published tiny Stella (packed, with the prefix `new.`) with an added tokenizer."""
    folder = tmp_path_factory.mktemp("stella")
    for source in (FIXTURES / "stella_tiny").iterdir():
        shutil.copyfile(source, folder / source.name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_encoder / name, folder / name)
    return folder


@needs_fixtures
@pytest.mark.parametrize("case", stella_cases())
def test_stella_matches_its_reference_code(stella: Path, case: str) -> None:
    with np.load(FIXTURES / "stella_tiny" / "expected.npz") as expected:
        wanted = {name.rsplit(".", 1)[1]: expected[name] for name in expected.files if name.rsplit(".", 1)[0] == case}
    batch = {name: wanted[name] for name in ("input_ids", "attention_mask")}
    types = {"token_type_ids": torch.from_numpy(wanted["token_type_ids"])} if "token_type_ids" in wanted else {}
    encoder = load_encoder(EncoderConfig(repo=str(stella), max_length=128)).encoder
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
        hidden = encoder.transformer(**inputs, **types).last_hidden_state.numpy()
    real = batch["attention_mask"].astype(bool)
    np.testing.assert_allclose(hidden[real], wanted["last_hidden_state"][real], atol=1e-5)
    if types:
        return  # reviews have one segment, so the pooled path has no token types
    np.testing.assert_allclose(run(encoder, batch), wanted["mean_pooled"], atol=1e-5)
    encoder.normalize = True
    np.testing.assert_allclose(run(encoder, batch), wanted["mean_pooled_norm"], atol=1e-5)


@needs_fixtures
def test_stella_without_its_rope_scaling_would_be_wrong(stella: Path, tmp_path: Path) -> None:
    """Shows that the parity test detects a missing rotary scaling."""
    shutil.copytree(stella, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "rope_scaling": None}))
    batch = {"input_ids": np.arange(1, 41)[None], "attention_mask": np.ones((1, 40), dtype=np.int64)}
    scaled, unscaled = (run(load_encoder(EncoderConfig(repo=str(f), max_length=128)).encoder, batch) for f in (stella, tmp_path))
    assert np.abs(scaled - unscaled).max() > 1e-3


@needs_fixtures
def test_the_real_stellas_rotary_settings(tmp_path: Path) -> None:
    settings = json.loads((FIXTURES / "stella_tiny" / "config.json").read_text())
    settings |= {"hidden_size": 1024, "num_attention_heads": 16}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    rope = read_config(tmp_path).rope_parameters
    assert rope["rope_theta"] == 320_000
    assert rope["factor"] == pytest.approx(1.0218971486541166, abs=1e-15)


@needs_fixtures
def test_unknown_rope_scaling_is_rejected(stella: Path, tmp_path: Path) -> None:
    shutil.copytree(stella, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "rope_scaling": {"type": "yarn", "factor": 2.0}}))
    with pytest.raises(EncoderError, match="yarn"):
        load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("REVIEWGUARD_TEST_HUB") != "1", reason="needs the Hub; set REVIEWGUARD_TEST_HUB=1")
@needs_fixtures
def test_the_real_stella_gives_its_published_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    wanted = json.loads((FIXTURES / "stella_real" / "embedding_1024.json").read_text())
    loaded = load_encoder(decode(load_preset("stella-logreg")["encoder"], EncoderConfig))
    vector = run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode([wanted["text"]])))[0]
    np.testing.assert_allclose(vector, wanted["embedding"], atol=2e-3)


def test_minilm_matches_sentence_transformers() -> None:
    """Reference: masked mean pooling and normalisation in sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    config = decode({**load_preset("minilm-logreg")["encoder"], "normalize": True, "max_length": 64}, EncoderConfig)
    loaded = load_encoder(config)
    texts = ["Great pan, nothing sticks.", "It broke.", "", "A longer review about a kettle " * 20]
    reference = SentenceTransformer(str(loaded.folder), device="cpu")
    reference.max_seq_length = 64
    ours = run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode(texts)))
    np.testing.assert_allclose(ours, reference.encode(texts, show_progress_bar=False), atol=1e-5)


def test_padding_does_not_change_an_embedding(tiny_encoder: Path) -> None:
    loaded = load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=64))
    texts = ["a pan", "this kettle is the best kettle that we have ever had and it boils fast"]
    together = run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode(texts)))
    alone = [run(loaded.encoder, loaded.tokenizer.pad(loaded.tokenizer.encode([text])))[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_dense_layer_after_pooling(tiny_encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(tiny_encoder, tmp_path, dirs_exist_ok=True)
    torch.manual_seed(1)
    weight, bias = torch.randn(8, 32), torch.randn(8)
    (tmp_path / "2_Dense_8").mkdir()
    settings = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
    (tmp_path / "2_Dense_8" / "config.json").write_text(json.dumps(settings))
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense_8" / "model.safetensors")
    plain = load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))
    dense = load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64, dense="2_Dense_8"))
    batch = plain.tokenizer.pad(plain.tokenizer.encode(["a kettle"]))
    expected = run(plain.encoder, batch) @ weight.numpy().T + bias.numpy()
    np.testing.assert_allclose(run(dense.encoder, batch), expected, atol=1e-5)
    assert dense.encoder.width == 8
    assert dense.config.weights_sha256 != plain.config.weights_sha256

    (tmp_path / "2_Dense_8" / "config.json").write_text(json.dumps({**settings, "activation_function": "torch.nn.Tanh"}))
    with pytest.raises(EncoderError, match="Tanh"):
        load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64, dense="2_Dense_8"))


def test_encoder_of_an_encoder_decoder(tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel, T5Model

    torch.manual_seed(0)
    config = T5Config(vocab_size=700, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    T5Model(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_encoder / name, tmp_path / name)
    loaded = load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))
    reference = T5EncoderModel.from_pretrained(tmp_path)
    batch = loaded.tokenizer.pad(loaded.tokenizer.encode(["a kettle", "the pan is good"]))
    expected = run(TransformerEncoder(reference, None, False), batch)
    np.testing.assert_allclose(run(loaded.encoder, batch), expected, atol=1e-6)
    assert loaded.encoder.width == 16


def test_weights_that_differ_from_the_pinned_ones_are_rejected(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="pins 0000"):
        load_encoder(EncoderConfig(repo=str(tiny_encoder), weights_sha256="0" * 64))


def test_pickled_weights_are_rejected(tiny_encoder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_encoder / name, tmp_path / name)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="pickled weights are not read"):
        load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))


def test_remote_code_is_never_run(tiny_encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"model_type": "planted", "auto_map": {"AutoConfig": "planted.Config", "AutoModel": "planted.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EncoderError, match="trust_remote_code"):
        load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attn_implementation": "somebody/kernel"}, "attn_implementation"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
    ],
)
def test_unsafe_configurations_are_rejected(
    tiny_encoder: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    shutil.copytree(tiny_encoder, tmp_path, dirs_exist_ok=True)
    original = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**original, **settings}))
    with pytest.raises(EncoderError, match=message):
        load_encoder(EncoderConfig(repo=str(tmp_path), max_length=64))


def test_max_length_above_the_positions_of_the_encoder_is_rejected(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="max_length is 65, but this encoder supports at most 64 tokens"):
        load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=65))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig(repo="no-such-folder"), "not a folder, a GGUF file or a Hub id"),
        (EncoderConfig(repo="owner/name"), "pin its commit with encoder.revision"),
        (EncoderConfig(repo="owner/name", revision="0" * 40), "cannot fetch owner/name .* from the Hugging Face Hub"),
    ],
)
def test_unavailable_encoder(config: EncoderConfig, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(config)


def test_a_prefix_is_put_before_each_text_once(tiny_encoder: Path, tmp_path: Path) -> None:
    texts = ["a good kettle", "the lid rattles"]
    settings = {"repo": str(tiny_encoder), "max_length": 32}
    plain, prefixed = load_encoder(EncoderConfig(**settings)), load_encoder(EncoderConfig(**settings, prefix="query: "))
    expected = [item.ids for item in plain.tokenizer.encode([f"query: {text}" for text in texts])]
    assert (
        [item.ids for item in prefixed.tokenizer.encode(texts)]
        == expected
        != [item.ids for item in plain.tokenizer.encode(texts)]
    )
    # A saved encoder has the tokenizer that puts the prefix there.
    saved = tmp_path / "saved"
    shutil.copytree(tiny_encoder, saved)
    for name, content in prefixed.tokenizer.files().items():
        (saved / name).write_bytes(content)
    again = load_encoder(EncoderConfig(repo=str(saved), max_length=32, prefix="query: "))
    assert [item.ids for item in again.tokenizer.encode(texts)] == expected
    # Normalisations that an export adds come first.
    exported = Tokenizer(*prefixed.tokenizer.files("typography").values(), 32)
    assert [item.ids for item in exported.encode(["  a  good kettle"])] == expected[:1]
