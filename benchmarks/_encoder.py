"""Encoders to begin with: published weights with fewer layers, and with a vocabulary cut down to what English reviews use."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
import weights
from tokenizers import Tokenizer
from transformers import AutoModel

from reviewguard import Classifier
from reviewguard.models.sources import locate

#: Letters and signs that any text may be spelled with: Latin-1 and Latin Extended.
_LAST_LETTER: Final = 0x24F
#: How a unigram vocabulary marks the beginning of a word.
_WORD: Final = "▁"


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """Where training begins.

    Attributes:
        name: "minilm", or a key of `weights.SOURCES`.
        layers: That are kept, from the first; 0: all.
        least: Times that a piece of the vocabulary occurs in the human training texts at least; 0: the published vocabulary.
    """

    name: str
    layers: int = 0
    least: int = 0


def folder(encoder: Encoder, texts: Iterable[str]) -> Path:
    """A folder with the encoder in Hugging Face layout, made now if it is not there.

    Args:
        encoder: Which.
        texts: That say which pieces of the vocabulary are used. Human texts: then no generator has a say in it.
    """
    published = (
        locate(Classifier("minilm-finetune")._recipe().encoder) if encoder.name == "minilm" else weights.locate(encoder.name)
    )
    if not encoder.layers and not encoder.least:
        return published
    texts = list(texts)
    key = hashlib.sha256(msgspec.json.encode([encoder, texts])).hexdigest()[:10]
    target = weights.cache() / f"{encoder.name}-{key}"
    if not (target / "tokenizer.json").exists():
        _slim(published, target, texts, encoder)
    return target


def _slim(source: Path, target: Path, texts: list[str], encoder: Encoder) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    model = AutoModel.from_pretrained(source, add_pooling_layer=False)
    if encoder.layers:
        model.encoder.layer = model.encoder.layer[: encoder.layers]
        model.config.num_hidden_layers = encoder.layers
    if encoder.least:
        kept = _prune(tokenizer, texts, encoder.least)
        vectors = model.embeddings.word_embeddings.weight.data[torch.tensor(kept)]
        padding = model.config.pad_token_id
        model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=padding)
        model.config.vocab_size = len(kept)
    model.save_pretrained(target)
    settings = (source / "tokenizer_config.json").read_text(encoding="utf-8")
    (target / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _prune(content: dict[str, Any], texts: list[str], least: int) -> list[int]:
    """Cut the unigram vocabulary of a tokenizer.json down; returns the ids that are kept, in order.

    Special tokens stay, with their ids, and so does every Latin letter, alone and at the beginning of a word.
    """
    counts: Counter[int] = Counter()
    for encoding in Tokenizer.from_str(json.dumps(content)).encode_batch_fast(texts, add_special_tokens=False):
        counts.update(encoding.ids)
    special = [token["id"] for token in content["added_tokens"] if token["id"] < len(content["model"]["vocab"])]
    vocabulary = content["model"]["vocab"]

    def stays(index: int, piece: str) -> bool:
        letters = piece.replace(_WORD, "")
        return index in special or counts[index] >= least or (len(letters) < 2 and all(ord(x) <= _LAST_LETTER for x in letters))

    kept = [index for index, (piece, _) in enumerate(vocabulary) if stays(index, piece)]
    if kept[: len(special)] != sorted(special):
        raise SystemExit("special tokens were expected to be the first pieces of the vocabulary")
    content["model"]["vocab"] = [vocabulary[index] for index in kept]
    return kept
