"""A smaller encoder out of a published one: fewer layers, and a vocabulary of the texts at hand that knows case.

Capitals tell generated reviews from people's, and the published vocabulary is uncased. A piece with capitals begins with the vector of
its lower-case form, so that at first the encoder computes what it did; pieces that the texts do not use are dropped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from transformers import AutoModel

#: Letters and signs that any text may be spelled with: Latin-1 and Latin Extended.
_LAST_LETTER: Final = 0x24F


def slim(source: Path, target: Path, texts: Iterable[str], *, layers: Sequence[int], least: int) -> None:
    """Write a smaller encoder in Hugging Face layout.

    Args:
        source: A BERT encoder with an uncased WordPiece vocabulary.
        target: Folder to write.
        texts: Whose words the vocabulary is made from.
        layers: Indices of those to keep, in order.
        least: Times that a piece occurs in `texts` at least; 0: the vocabulary is left as it is.
    """
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    model = AutoModel.from_pretrained(source, add_pooling_layer=False)
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[index] for index in layers])
    model.config.num_hidden_layers = len(layers)
    if least:
        origins = _keep_case(tokenizer, texts, least)
        settings |= {"do_lower_case": False, "strip_accents": True}
        vectors = model.embeddings.word_embeddings.weight.data[torch.tensor(origins)]
        model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        model.config.vocab_size = len(origins)
    model.save_pretrained(target)
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (target / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _keep_case(content: dict[str, Any], texts: Iterable[str], least: int) -> list[int]:
    """Change a tokenizer.json; returns for each of its new pieces the id of the uncased one that its vector comes from."""
    content |= {"truncation": None, "padding": None}
    uncased, vocabulary = Tokenizer.from_str(json.dumps(content)), content["model"]["vocab"]
    names = {index: piece for piece, index in vocabulary.items()}
    content["normalizer"] |= {"lowercase": False, "strip_accents": True}
    keeping = Tokenizer.from_str(json.dumps(content))
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in keeping.pre_tokenizer.pre_tokenize_str(keeping.normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    origin: dict[str, int] = {}
    for word, count in words.items():
        if len(word.lower()) != len(word):
            continue
        start = 0
        for index in uncased.encode(word.lower(), add_special_tokens=False).ids:
            length = len(names[index].removeprefix("##"))
            piece = ("##" if start else "") + word[start : start + length]
            counts[piece] += count
            origin[piece] = index
            start += length
    special = [token["content"] for token in content["added_tokens"]]
    kept = {piece: vocabulary[piece] for piece in special}
    for piece, index in vocabulary.items():
        letter = piece.removeprefix("##")
        if len(letter) == 1 and ord(letter) <= _LAST_LETTER:
            kept[piece] = index
            if len(letter.upper()) == 1:
                kept.setdefault(piece.removesuffix(letter) + letter.upper(), index)
    kept |= {piece: origin[piece] for piece, count in counts.items() if count >= least and origin[piece] != vocabulary["[UNK]"]}
    order = sorted(kept, key=lambda piece: (piece not in special, kept[piece], piece))
    ids = {piece: index for index, piece in enumerate(order)}
    content["model"]["vocab"] = ids
    for token in content["added_tokens"]:
        token["id"] = ids[token["content"]]
    for name, token in content["post_processor"]["special_tokens"].items():
        token["ids"] = [ids[name]]
    return [kept[piece] for piece in order]
