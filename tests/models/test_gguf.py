"""GGUF files as encoders: the converted weights are those that were written."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2Model

from reviewguard import Classifier, files
from reviewguard.config import EncoderConfig
from reviewguard.data.reviews import read
from reviewguard.errors import EncoderError
from reviewguard.models.encoder import load_encoder
from reviewguard.models.text_model import run

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


@pytest.fixture(scope="module")
def model() -> Qwen2Model:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    }
    return Qwen2Model(Qwen2Config(**sizes, vocab_size=400, max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=10_000.0))


@pytest.fixture(scope="module")
def source(model: Qwen2Model, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2 in 8 bits, with a byte-level tokenizer."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(read(sample).texts, trainer)
    path = tmp_path_factory.mktemp("gguf") / "tiny-q8_0.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    config = model.config
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([piece for piece, _ in vocabulary])
    writer.add_token_types([3 if piece in special else 1 for piece, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            target = f"blk.{layer}.{NAMES[rest]}"
        else:
            target = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_weights_and_tokens_are_those_of_the_file(source: Path, model: Qwen2Model, sample: Path) -> None:
    loaded = load_encoder(EncoderConfig(repo=str(source), max_length=64, pooling="last"))
    assert loaded.config.weights_sha256 == files.sha256(source)
    texts = [text[:60] for text in read(sample).texts[:8]]
    batch = loaded.tokenizer.pad(loaded.tokenizer.encode(texts))
    got = run(loaded.encoder, batch)
    with torch.inference_mode():
        hidden = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).last_hidden_state.numpy()
    expected = np.stack([row[mask.sum() - 1] for row, mask in zip(hidden, batch["attention_mask"], strict=True)])
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max(), "only the rounding to 8 bits differs"
    assert [loaded.tokenizer._plain.decode(loaded.tokenizer.encode([text])[0].ids) for text in texts] == texts
    typed = loaded.tokenizer.encode(["good <|im_end|> kettle"])[0].ids
    assert 2 not in typed, "a token of the chat template, typed into a text, is plain characters"


def test_a_folder_with_one_file_is_that_file_and_is_converted_once(source: Path, cache: Path) -> None:
    load_encoder(EncoderConfig(repo=str(source.parent), max_length=64))
    (folder,) = [path for path in (cache / "gguf").iterdir() if path.is_dir()]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    load_encoder(EncoderConfig(repo=str(source), max_length=64))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    load_encoder(EncoderConfig(repo=str(source), max_length=64))
    assert (folder / "model.safetensors").stat().st_mtime_ns != before, "damaged weights are converted again"


def test_a_model_is_saved_with_plain_weights_and_the_hash_of_the_file(source: Path, sample: Path, tmp_path: Path) -> None:
    reviews = read(sample)
    settings = {"encoder__repo": str(source), "encoder__max_length": 32, "loop__epochs": 1, "lora__r": 4}
    model = Classifier("decoder", **settings).fit(reviews.texts[:40], reviews.labels[:40])
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "encoder" / "model.safetensors").exists()
    assert not list((tmp_path / "saved").rglob("*.gguf"))
    assert model.manifest.recipe["encoder"]["repo"] == "encoder"
    assert model.manifest.recipe["encoder"]["weights_sha256"] == files.sha256(source)
    again = Classifier.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(again.predict_proba(reviews.texts), model.predict_proba(reviews.texts), atol=1e-5)


def test_invalid_sources_are_rejected(source: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="but the recipe pins"):
        load_encoder(EncoderConfig(repo=str(source), weights_sha256="0" * 64))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(source.read_bytes()[:5000])
    with pytest.raises(EncoderError, match=r"has 2 GGUF files \(a\.gguf, b\.gguf"):
        load_encoder(EncoderConfig(repo=str(tmp_path)))
    with pytest.raises(EncoderError, match=r"cannot convert .*a\.gguf"):
        load_encoder(EncoderConfig(repo=str(tmp_path / "a.gguf")))


@pytest.mark.parametrize("saved", [False, True])
def test_adapters_are_merged_into_the_converted_weights(source: Path, sample: Path, tmp_path: Path, saved: bool) -> None:
    reviews = read(sample)
    settings = {"encoder__repo": str(source), "encoder__max_length": 32, "loop__epochs": 1, "lora__r": 4}
    model = Classifier("decoder", **settings).fit(reviews.texts[:40], reviews.labels[:40])
    if saved:
        model.save(tmp_path / "saved")
        model = Classifier.from_pretrained(tmp_path / "saved")
    report = model.merge(reviews.texts[:20], base="original").manifest.merged
    assert report is not None
    assert report["trained"]["logit"] < 0.01
    assert report["original"]["logit"] < 1
