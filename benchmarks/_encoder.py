"""Initial encoders: published weights, optionally with fewer layers and a vocabulary pruned to English reviews."""

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

#: Last code point of Latin-1 and Latin Extended, whose letters always stay in the vocabulary.
_LAST_LETTER: Final = 0x24F
#: Mark of the start of a word in a unigram vocabulary.
_WORD: Final = "▁"


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """An initial encoder.

    Attributes:
        name: "minilm" or a key of `weights.SOURCES`.
        layers: Number of layers to keep, from the first; 0: all.
        least: Fewest occurrences in the human training texts for a vocabulary piece to stay; 0: the published vocabulary.
    """

    name: str
    layers: int = 0
    least: int = 0


def folder(encoder: Encoder, texts: Iterable[str]) -> Path:
    """The folder of an encoder in Hugging Face layout, created if missing.

    Args:
        encoder: The encoder.
        texts: Texts that determine which vocabulary pieces stay. Human texts, so that no generator influences the vocabulary.
    """
    published = (
        locate(Classifier("minilm-finetune")._recipe().encoder).folder
        if encoder.name == "minilm"
        else weights.locate(encoder.name)
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
        ids = _prune(tokenizer, texts, encoder.least)
        vectors = model.embeddings.word_embeddings.weight.data[torch.tensor(ids)]
        padding = model.config.pad_token_id
        model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=padding)
        model.config.vocab_size = len(ids)
    model.save_pretrained(target)
    settings = (source / "tokenizer_config.json").read_text(encoding="utf-8")
    (target / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _prune(content: dict[str, Any], texts: list[str], least: int) -> list[int]:
    """Prune the unigram vocabulary of a tokenizer.json in place; returns the remaining ids, in order.

    Special tokens keep their ids. Every Latin letter stays, alone and at the start of a word.
    """
    counts: Counter[int] = Counter()
    for encoding in Tokenizer.from_str(json.dumps(content)).encode_batch_fast(texts, add_special_tokens=False):
        counts.update(encoding.ids)
    special = [token["id"] for token in content["added_tokens"] if token["id"] < len(content["model"]["vocab"])]
    vocabulary = content["model"]["vocab"]

    def stays(index: int, piece: str) -> bool:
        letters = piece.replace(_WORD, "")
        return index in special or counts[index] >= least or (len(letters) < 2 and all(ord(x) <= _LAST_LETTER for x in letters))

    remaining = [index for index, (piece, _) in enumerate(vocabulary) if stays(index, piece)]
    if remaining[: len(special)] != sorted(special):
        raise SystemExit("special tokens must be the first pieces of the vocabulary")
    content["model"]["vocab"] = [vocabulary[index] for index in remaining]
    return remaining
