"""Pruned vocabularies: the training texts keep their pieces and embeddings, and other texts can still be tokenised."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tokenizers
import torch
from architectures import TEXTS, make_bert
from safetensors.torch import load_file, save
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, Gemma3TextConfig, Gemma3TextModel, MPNetConfig, MPNetModel, T5Config, T5Model

from reviewguard import Classifier
from reviewguard.bundle.folder import write_bundle
from reviewguard.config import EncoderConfig
from reviewguard.data.reviews import read
from reviewguard.errors import BundleError, EncoderError
from reviewguard.models.encoder import load_encoder
from reviewguard.models.text_model import run

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "pad_token_id": 1}


def _unigram() -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>")


def _bpe() -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)


def _wordpiece() -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)


KINDS = {"unigram": _unigram, "bpe": _bpe, "wordpiece": _wordpiece}


def make(kind: str, folder: Path, texts: list[str], **changes: int) -> EncoderConfig:
    """A tokenizer of this kind, trained on texts, with a random model that suits it."""
    tokenizer, trainer = KINDS[kind]()
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "unk_token": "<unk>"}))
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": tokenizer.get_vocab_size()}
    model = {
        "unigram": lambda: MPNetModel(MPNetConfig(**{**sizes, "max_position_embeddings": 66, **changes})),
        "bpe": lambda: Gemma3TextModel(Gemma3TextConfig(**sizes, num_key_value_heads=1, head_dim=16)),
        "wordpiece": lambda: BertModel(BertConfig(**sizes, max_position_embeddings=64)),
    }[kind]()
    model.save_pretrained(folder)
    return EncoderConfig(repo=str(folder), max_length=64, prune_vocabulary=True, pooling="last" if kind == "bpe" else "mean")


@pytest.mark.parametrize("kind", KINDS)
def test_training_texts_keep_their_embeddings(kind: str, sample: Path, tmp_path: Path) -> None:
    texts = read(sample).texts
    config = make(kind, tmp_path / "encoder", texts)
    published, loaded = load_encoder(config), load_encoder(config)
    pruned = loaded.prepared(texts[:30])
    pieces = published.encoder.config.vocab_size
    assert pruned.encoder.config.vocab_size == len(pruned.encoder.vocabulary) < pieces
    assert pruned.encoder.transformer.get_input_embeddings().weight.shape[0] == len(pruned.encoder.vocabulary)
    expected, got = (run(one.encoder, one.tokenizer.pad(one.tokenizer.encode(texts[:30]))) for one in (published, pruned))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    # Of other texts, every character is still known. Special tokens may be typed into a text.
    for text in (texts[200], "</s> zyx <mask> <pad>"):
        ids = pruned.tokenizer.encode([text])[0].ids
        assert max(ids) < len(pruned.encoder.vocabulary)
        original = [published.tokenizer._plain.id_to_token(int(pruned.encoder.vocabulary[index])) for index in ids]
        assert original == [pruned.tokenizer._plain.id_to_token(index) for index in ids]
    assert "<unk>" not in [pruned.tokenizer._plain.id_to_token(index) for index in pruned.tokenizer.encode(texts[200:201])[0].ids]


def test_text_beyond_the_maximum_length_counts(sample: Path, tmp_path: Path) -> None:
    """Windows read it."""
    texts = read(sample).texts
    config = msgspec.structs.replace(make("wordpiece", tmp_path / "encoder", texts), max_length=8)
    whole = load_encoder(config).prepared(texts)
    assert len(whole.encoder.vocabulary) > len(load_encoder(config).prepared([text[:20] for text in texts]).encoder.vocabulary)


def test_an_encoder_and_a_decoder_share_the_pruned_table(sample: Path, tmp_path: Path) -> None:
    texts = read(sample).texts
    config = msgspec.structs.replace(make("unigram", tmp_path / "encoder", texts), pooling="last")
    pieces = load_encoder(msgspec.structs.replace(config, pooling="mean")).encoder.config.vocab_size
    t5 = T5Model(
        T5Config(
            vocab_size=pieces, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, pad_token_id=1, decoder_start_token_id=1
        )
    )
    t5.save_pretrained(tmp_path / "encoder")
    published, pruned = load_encoder(config), load_encoder(config).prepared(texts[:30])
    expected, got = (run(one.encoder, one.tokenizer.pad(one.tokenizer.encode(texts[:30]))) for one in (published, pruned))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_vocabulary_of_words(tmp_path: Path) -> None:
    config = msgspec.structs.replace(make_bert(tmp_path), prune_vocabulary=True)
    pruned = load_encoder(config).prepared(TEXTS[:1])
    assert len(pruned.encoder.vocabulary) < 12
    assert pruned.tokenizer.encode(["a lid"])[0].ids.count(pruned.tokenizer._plain.token_to_id("<unk>")) == 1


@pytest.mark.parametrize("preset", ["minilm-logreg", "minilm-qlora", "minilm-finetune"])
def test_pruned_models_are_saved_exported_and_trained_again(preset: str, sample: Path, tmp_path: Path) -> None:
    reviews = read(sample)
    config = make("unigram", tmp_path / "encoder", reviews.texts)
    settings = {
        "encoder__repo": config.repo,
        "encoder__revision": "",
        "encoder__weights_sha256": "",
        "encoder__max_length": 32,
        "encoder__prune_vocabulary": True,
    }
    if preset != "minilm-logreg":
        settings |= {"loop__epochs": 1, "lora__target_modules": "all-linear"} if preset == "minilm-qlora" else {"loop__epochs": 1}
    texts, labels = reviews.texts[:60], reviews.labels[:60]
    model = Classifier(preset, **settings).fit(texts, labels)
    expected = model.predict_proba(reviews.texts)
    model.save(tmp_path / "saved")
    saved = Classifier.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(saved.predict_proba(reviews.texts), expected, atol=1e-6)
    assert (tmp_path / "saved" / "vocabulary.safetensors").exists() == (preset != "minilm-finetune")
    model.export(tmp_path / "exported")
    assert not (tmp_path / "exported" / "vocabulary.safetensors").exists()
    exported = Classifier.from_pretrained(tmp_path / "exported", runtime="onnxruntime", precision="fp32")
    np.testing.assert_allclose(exported.predict_proba(reviews.texts), expected, atol=1e-4)
    if preset == "minilm-qlora":
        merged = model.merge(texts, base="original")
        merged.save(tmp_path / "merged")
        assert not (tmp_path / "merged" / "vocabulary.safetensors").exists()
        again = Classifier.from_pretrained(tmp_path / "merged")
        np.testing.assert_allclose(again.predict_proba(texts), merged.predict_proba(texts), atol=1e-5)
    saved.fit(texts, labels)
    if preset != "minilm-finetune":  # which continues from the saved weights
        np.testing.assert_allclose(saved.predict_proba(texts), model.predict_proba(texts), atol=1e-5)


def test_a_vocabulary_that_does_not_fit_is_rejected(sample: Path, tmp_path: Path) -> None:
    reviews = read(sample)
    config = make("wordpiece", tmp_path / "encoder", reviews.texts)
    settings = {"encoder__repo": config.repo, "encoder__revision": "", "encoder__weights_sha256": "", "encoder__max_length": 32}
    model = Classifier("minilm-logreg", **settings, encoder__prune_vocabulary=True).fit(reviews.texts[:40], reviews.labels[:40])
    model.save(tmp_path / "saved")
    ids = load_file(tmp_path / "saved" / "vocabulary.safetensors")["ids"]
    trained = Classifier.from_pretrained(tmp_path / "saved")._trained()
    for number, damaged in enumerate((ids.flip(0), ids + 1000, ids[:0])):
        files = {**trained.files, "vocabulary.safetensors": save({"ids": damaged.contiguous()})}
        write_bundle(tmp_path / f"damaged-{number}", trained.manifest, files)
        with pytest.raises(BundleError, match=r"vocabulary\.safetensors is malformed"):
            Classifier.from_pretrained(tmp_path / f"damaged-{number}")


def test_position_ids_by_padding(sample: Path, tmp_path: Path) -> None:
    """MPNet counts positions from the padding token's id, so this id must not change."""
    texts = read(sample).texts
    config = make("unigram", tmp_path / "encoder", texts, pad_token_id=350, max_position_embeddings=500)
    with pytest.raises(EncoderError, match="would renumber the padding token"):
        load_encoder(config).prepared(texts[:5])
