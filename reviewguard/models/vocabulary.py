"""Pruning of an encoder's vocabulary to the pieces that the training texts use.

Most of a multilingual encoder is its embedding table: 96 of 118 million parameters in multilingual-e5-small. Texts of a few
languages use a tenth of it (Abdaoui et al. 2020, arXiv:2010.05609).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig

from reviewguard.data.tokens import Tokenizer

#: Architectures that number positions from the id of the padding token plus one.
POSITIONS_BEHIND_PADDING: Final = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
#: Marks of the beginning or the continuation of a word.
_MARKS: Final = ("\u2581", "\u0120", "##")


def prune(tokenizer: Tokenizer, config: PretrainedConfig, texts: Sequence[str]) -> tuple[NDArray[np.int64], Tokenizer]:
    """Keep the pieces that texts use, single characters and bytes, and the special tokens that the model needs.

    Args:
        tokenizer: The encoder's tokenizer.
        config: The transformer's configuration.
        texts: Normalised training texts. The pruned tokenizer splits them into the same pieces.

    Returns:
        The ids of the pieces that stay, int64 (pieces,), in ascending order, and a tokenizer with these pieces, numbered from 0.

    Raises:
        ValueError: If the tokenizer's model is not supported.
    """
    files = tokenizer.files()
    content, settings = json.loads(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    plain = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
    plain.no_truncation()
    plain.encode_special_tokens = True
    vocabulary = _vocabulary(content["model"])
    used = set(_special(content, settings, config))
    used |= {index for piece, index in vocabulary.items() if _is_single(piece)}
    for encoding in plain.encode_batch_fast(list(texts)):
        used.update(encoding.ids)
    if content["model"]["type"] == "BPE":
        used |= _parts(content["model"], vocabulary, used)
    ids = sorted(used)
    if config.model_type in POSITIONS_BEHIND_PADDING and ids.index(config.pad_token_id) != config.pad_token_id:
        raise ValueError(f"prune_vocabulary would renumber the padding token, by which {config.model_type} counts positions")
    _keep(content, {old: index for index, old in enumerate(ids)})
    pruned = Tokenizer(json.dumps(content, ensure_ascii=False).encode(), files["tokenizer_config.json"], tokenizer.max_length)
    return np.array(ids, dtype=np.int64), pruned


def select(transformer: nn.Module, ids: NDArray[np.int64]) -> None:
    """Keep only these rows of the transformer's embedding table, in place.

    Raises:
        ValueError: If the ids are not ascending, or the table has no such row.
    """
    table: nn.Embedding = transformer.get_input_embeddings()  # type: ignore[operator]
    if not len(ids) or ids[0] < 0 or ids[-1] >= len(table.weight) or (np.diff(ids) <= 0).any():
        raise ValueError(f"a vocabulary of {len(ids)} pieces does not fit a table of {len(table.weight)}")
    new = {old: index for index, old in enumerate(ids.tolist())}
    rows = torch.from_numpy(ids).to(table.weight.device)
    for module in transformer.modules():
        if isinstance(module, nn.Embedding) and module.weight is table.weight:
            module.num_embeddings = len(ids)
    # The parameter object stays, and with it the ties of an encoder's and a decoder's tables.
    table.weight.data = table.weight.data[rows]
    if table.padding_idx is not None:
        table.padding_idx = new[table.padding_idx]
    config: Any = transformer.config
    for name, value in _token_ids(config):
        setattr(config, name, new.get(value))
    config.vocab_size = len(ids)


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    if model["type"] in ("BPE", "WordPiece", "WordLevel"):
        vocabulary: dict[str, int] = model["vocab"]
        return vocabulary
    raise ValueError(f"prune_vocabulary does not support tokenizers of type {model['type']}")


def _is_single(piece: str) -> bool:
    for mark in _MARKS:
        piece = piece.removeprefix(mark)
    return len(piece) < 2 or (len(piece) == 6 and piece.startswith("<0x"))


def _special(content: dict[str, Any], settings: dict[str, Any], config: PretrainedConfig) -> Iterable[int]:
    """Ids of the special tokens that the tokenizer's settings, its model or the transformer's configuration name."""
    named = {str(settings.get(f"{role}_token")) for role in ("unk", "pad", "bos", "eos", "cls", "sep")}
    yield from (token["id"] for token in content["added_tokens"] if token["content"] in named)
    yield from (value for _, value in _token_ids(config))
    if content["post_processor"]:
        yield from _referred(content["post_processor"])
    if (unknown := content["model"].get("unk_id")) is not None:
        yield unknown
    if (token := content["model"].get("unk_token")) is not None:
        yield content["model"]["vocab"][token]


def _keep(content: dict[str, Any], new: dict[int, int]) -> None:
    """Remove and renumber the pieces in the contents of a tokenizer.json; `new` has the new id of each that stays."""
    model = content["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [piece for index, piece in enumerate(model["vocab"]) if index in new]
        model["unk_id"] = new.get(model["unk_id"])
    else:
        model["vocab"] = {piece: new[old] for piece, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        pieces = model["vocab"].keys()
        model["merges"] = [[a, b] for a, b in map(_pair, model["merges"]) if {a, b, a + b} <= pieces]
    content["added_tokens"] = [{**token, "id": new[token["id"]]} for token in content["added_tokens"] if token["id"] in new]
    if content["post_processor"]:
        _renumber(content["post_processor"], new)


def _token_ids(config: PretrainedConfig) -> list[tuple[str, int]]:
    values = [(name, getattr(config, name, None)) for name in vars(config) if name.endswith("_token_id")]
    return [(name, value) for name, value in values if isinstance(value, int) and 0 <= value < config.vocab_size]


def _parts(model: dict[str, Any], vocabulary: dict[str, int], used: set[int]) -> set[int]:
    """The pieces from which byte-pair encoding builds the used ones."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for a, b in map(_pair, model["merges"]):
        parts.setdefault(a + b, []).append((a, b))
    pieces = {index: piece for piece, index in vocabulary.items()}
    waiting, needed = [pieces[index] for index in used if index in pieces], set[str]()
    while waiting:
        for part in (part for pair in parts.get(waiting.pop(), ()) for part in pair):
            if part not in needed:
                needed.add(part)
                waiting.append(part)
    return {vocabulary[piece] for piece in needed}


def _pair(merge: str | list[str]) -> tuple[str, str]:
    a, b = merge.split(" ") if isinstance(merge, str) else merge
    return a, b


def _referred(processor: dict[str, Any]) -> Iterable[int]:
    """The token ids in a post-processor of tokenizer.json."""
    for inner in processor.get("processors", ()):
        yield from _referred(inner)
    for token in (processor.get("special_tokens") or {}).values():
        yield from token["ids"]
    yield from (processor[role][1] for role in ("sep", "cls") if role in processor)


def _renumber(processor: dict[str, Any], new: dict[int, int]) -> None:
    """Replace the token ids in a post-processor of tokenizer.json."""
    for inner in processor.get("processors", ()):
        _renumber(inner, new)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for role in ("sep", "cls"):
        if role in processor:
            processor[role][1] = new[processor[role][1]]
