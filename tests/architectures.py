"""Tiny random models of every architecture that tests train, in Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import transformers
from torch import nn

from reviewguard.config import EncoderConfig

TEXTS = ["a kettle that boils", "the lid rattles a bit, but for the price it is fine and I would buy it again", "no"]


SIZES = {"vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def _tokenizer(folder: Path) -> None:
    """A word-level tokenizer that ends each text with </s>."""
    words = ["<pad>", "</s>", "<unk>", "<s>", *sorted({word for text in TEXTS for word in text.replace(",", " ,").split()})]
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}
    tokens = [{"id": i, "content": words[i], "special": True} for i in range(4)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = {word: {"id": word, "ids": [words.index(word)], "tokens": [word]} for word in ("<s>", "</s>")}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, **flags} for token in tokens],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": template,
        "decoder": None,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "eos_token": "</s>"}))


def _save(folder: Path, model: transformers.PreTrainedModel) -> EncoderConfig:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)  # the usual 0.02 would leave tiny models almost constant
    model.save_pretrained(folder)
    _tokenizer(folder)
    decoder_state = model.config.model_type in ("t5", "qwen3", "llama", "gemma3_text")
    return EncoderConfig(repo=str(folder), max_length=32, pooling="last" if decoder_state else "mean")


def make_bert(folder: Path) -> EncoderConfig:
    config = transformers.BertConfig(
        **SIZES,
        max_position_embeddings=64,
    )
    return _save(folder, transformers.BertModel(config))


def make_gte(folder: Path) -> EncoderConfig:
    config = transformers.AutoConfig.for_model(
        "gte",
        **SIZES,
        rope_parameters={"rope_type": "linear", "rope_theta": 320000.0, "factor": 1.02},
    )
    return _save(folder, transformers.AutoModel.from_config(config))


def make_t5(folder: Path) -> EncoderConfig:
    config = transformers.T5Config(
        vocab_size=40,
        d_model=64,
        d_kv=32,
        d_ff=128,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    return _save(folder, transformers.T5Model(config))


def make_qwen3(folder: Path) -> EncoderConfig:
    config = transformers.Qwen3Config(
        vocab_size=40,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=128,
    )
    return _save(folder, transformers.Qwen3Model(config))


def make_modernbert(folder: Path) -> EncoderConfig:
    config = transformers.ModernBertConfig(
        vocab_size=40,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return _save(folder, transformers.ModernBertModel(config))


def make_deberta(folder: Path) -> EncoderConfig:
    config = transformers.DebertaV2Config(
        **SIZES,
        max_position_embeddings=64,
    )
    return _save(folder, transformers.DebertaV2Model(config))


def make_mpnet(folder: Path) -> EncoderConfig:
    config = transformers.MPNetConfig(**SIZES, max_position_embeddings=66, pad_token_id=0)
    return _save(folder, transformers.MPNetModel(config))


def make_llama(folder: Path) -> EncoderConfig:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=True)
    return _save(folder, transformers.LlamaModel(config))


def make_gemma3(folder: Path) -> EncoderConfig:
    """With a layer of local attention, whose window is shorter than the texts."""
    layers = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(
        **SIZES, num_key_value_heads=1, head_dim=32, layer_types=layers, sliding_window=4, tie_word_embeddings=True
    )
    return _save(folder, transformers.Gemma3TextModel(config))


MAKERS: dict[str, tuple[Callable[[Path], EncoderConfig], tuple[str, ...]]] = {
    "bert": (make_bert, ("query", "key", "value", "dense")),
    "gte": (make_gte, ("q_proj", "k_proj", "v_proj", "o_proj")),
    "t5": (make_t5, ("q", "k", "v", "o", "wi_0", "wi_1", "wo")),
    "qwen3": (make_qwen3, ("q_proj", "v_proj", "up_proj")),
    "modernbert": (make_modernbert, ("Wqkv", "Wo", "Wi")),
    "deberta-v2": (make_deberta, ("query_proj", "value_proj")),
    "mpnet": (make_mpnet, ("q", "k", "v", "o", "dense")),
    "llama": (make_llama, ("q_proj", "v_proj", "up_proj")),
    "gemma3": (make_gemma3, ("q_proj", "v_proj", "up_proj")),
}
