"""TF-IDF of character n-grams under a linear classifier, as a torch module that is saved and exported like other models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import msgspec
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reviewguard.bundle.folder import well_formed
from reviewguard.data.tokens import MAX_CHARS, Tokenizer
from reviewguard.inference.scoring import Floats, compute
from reviewguard.models.device import token_budget
from reviewguard.models.text_model import Encoder, run

#: Name of the files of a model's encoder, and of those of the baseline that is stored next to another model.
MODEL, BASELINE = "tfidf", "baseline"
#: Lengths of the n-grams.
SHORTEST, LONGEST = 2, 5
#: Ranges of code points whose characters are tokens: the basic plane, without surrogates and private use, and symbols.
_RANGES: Final = ((0x1, 0xD7FF), (0xF900, 0xFFFD), (0x1F000, 0x1FBFF))
#: The token of all other characters.
_UNKNOWN: Final = "\ufffd"
_OTHERS: Final = re.compile(f"[^{''.join(f'{chr(first)}-{chr(last)}' for first, last in _RANGES)}]")
#: Larger than every key. Some engines use 32-bit integers.
_NO_KEY: Final = 2**31 - 1


class TfidfEncoder(Encoder):
    """Maps the characters of a text to one score per class: a linear function of the TF-IDF vector of the text's n-grams.

    The vector equals that of scikit-learn's `TfidfVectorizer(analyzer="char", sublinear_tf=True, lowercase=False)`. N-grams are
    looked up in a trie. Each level of the trie is a sorted table of the pairs of a node and the character that follows it.
    """

    def __init__(self, terms: Sequence[str], idf: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take the fitted coefficients, all float32.

        Args:
            terms: The n-grams, t of them.
            idf: Inverse document frequencies (t,).
            weight: Coefficients (classes, t).
            bias: Intercepts (classes,).

        Raises:
            ValueError: If the shapes differ, or an n-gram has a length or character that is not supported.
        """
        super().__init__()
        if not len(terms) or idf.shape != (len(terms),) or weight.shape != (len(bias), len(terms)) or not len(bias):
            raise ValueError(
                f"{len(terms)} terms do not match tensors of shapes {[tuple(tensor.shape) for tensor in (idf, weight, bias)]}"
            )
        self.terms = list(terms)
        self.idf = nn.Parameter(idf)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        codes, tables = _trie(self.terms)
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        for length, (keys, columns) in tables.items():
            self.register_buffer(f"keys_{length}", torch.from_numpy(keys), persistent=False)
            self.register_buffer(f"columns_{length}", torch.from_numpy(columns), persistent=False)
        self._base = int(codes.max()) + 1

    @property
    def width(self) -> int:
        """Number of scores per text."""
        return len(self.bias)

    @property
    def settings(self) -> dict[str, Any]:
        """Contents of config.json."""
        return {"model_type": "reviewguard-tfidf", "vocab_size": len(_characters())}

    def random_ids(self, rng: np.random.Generator, rows: int, length: int) -> NDArray[np.int64]:
        """The characters of randomly drawn terms (rows, length). Few random characters would form a term."""
        terms = [self.terms[index] for index in rng.integers(0, len(self.terms), size=rows * length)]
        ids = [_characters()[character] for character in "".join(terms)[: rows * length]]
        return np.array(ids, dtype=np.int64).reshape(rows, length)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 (batch, length) token ids and mask to float32 (batch, classes)."""
        # Characters that occur in no term, and positions behind the end of the text, have the code 0, which no key contains.
        codes = self.get_buffer("codes")[input_ids] * attention_mask
        following = nn.functional.pad(codes, (0, LONGEST - 1))
        nodes, found = codes, []
        for length in range(2, LONGEST + 1):
            start = length - 1
            nodes, columns = self._step(length, nodes, following[:, start : start + input_ids.shape[1]])
            found.append(columns)
        columns = torch.cat(found, dim=1)
        # Each of the n occurrences of a term adds 1/n of the term's value. The last count is of n-grams that are not terms.
        zeros = torch.zeros(len(input_ids), len(self.idf) + 1, dtype=self.idf.dtype, device=columns.device)
        is_term = columns < len(self.idf)
        n = zeros.scatter_add(1, columns, torch.ones_like(columns, dtype=self.idf.dtype)).gather(1, columns)
        columns = columns.clamp(max=len(self.idf) - 1)
        values = is_term * (1 + n.log()) * self.idf[columns]
        total = ((values / n).unsqueeze(-1) * self.weight.T[columns]).sum(dim=1)
        norm = (values.square() / n).sum(dim=1, keepdim=True).sqrt()
        # Only a text without terms has the norm 0.
        return total / norm.clamp(min=torch.finfo(norm.dtype).tiny) + self.bias

    def _step(self, length: int, nodes: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Follow each node by a character. Returns the nodes, -1 for none, and the columns of the terms that end there."""
        keys, columns = self.get_buffer(f"keys_{length}"), self.get_buffer(f"columns_{length}")
        wanted = nodes * self._base + codes
        # Binary search, written as lookups because ONNX has no such operator.
        position, step = torch.zeros_like(wanted), len(keys) // 2
        while step:
            position = torch.where(keys[position + step] <= wanted, position + step, position)
            step //= 2
        exists = keys[position] == wanted
        return torch.where(exists, position, -1), torch.where(exists, columns[position], len(self.idf))


def _trie(terms: Sequence[str]) -> tuple[NDArray[np.int64], dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """Tables of the trie.

    Returns:
        The code of each token, 0 for characters that occur in no term; and for each length of n-grams the sorted keys, padded to
        a power of two, with the column of the term that each key completes.
    """
    lengths = [len(term) for term in terms]
    known = _characters()
    used = sorted(set("".join(terms)))
    if min(lengths) < SHORTEST or max(lengths) > LONGEST or not set(used) <= known.keys() or len(set(terms)) < len(terms):
        raise ValueError(f"terms must be distinct and consist of {SHORTEST} to {LONGEST} supported characters")
    code = {character: number for number, character in enumerate(used, 1)}
    codes = np.zeros(len(known), dtype=np.int64)
    codes[[known[character] for character in used]] = range(1, len(used) + 1)
    column = {term: index for index, term in enumerate(terms)}
    node, tables = dict(code), {}
    for length in range(2, LONGEST + 1):
        prefixes = {term[:length] for term in terms if len(term) >= length}
        key = {prefix: node[prefix[:-1]] * (len(code) + 1) + code[prefix[-1]] for prefix in prefixes}
        ordered = sorted(prefixes, key=key.__getitem__)
        size = 1 << max(len(ordered) - 1, 0).bit_length()
        if ordered and key[ordered[-1]] >= _NO_KEY:
            raise ValueError(f"{len(terms)} terms with {len(used)} different characters are too many; lower max_features")
        padding = size - len(ordered)
        keys = np.array([*(key[prefix] for prefix in ordered), *[_NO_KEY] * padding], dtype=np.int64)
        columns = np.array([*(column.get(prefix, len(terms)) for prefix in ordered), *[len(terms)] * padding], dtype=np.int64)
        tables[length] = keys, columns
        node = {prefix: index for index, prefix in enumerate(ordered)}
    return codes, tables


@cache
def _characters() -> dict[str, int]:
    """Token id of each supported character."""
    characters = [chr(code) for first, last in _RANGES for code in range(first, last + 1)]
    return {character: index for index, character in enumerate(characters)}


def with_supported(text: str) -> str:
    """Replace the characters that are not tokens, as the tokenizer does."""
    return _OTHERS.sub(_UNKNOWN, text)


@cache
def character_tokenizer(max_length: int) -> Tokenizer:
    """A tokenizer whose tokens are characters. Like scikit-learn's, it replaces a run of white space by one space.

    Args:
        max_length: Maximum number of characters of a text.
    """
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": _UNKNOWN, "pad_token": _UNKNOWN}
    return Tokenizer(_tokenizer_json(), msgspec.json.encode(settings), max_length)


def _tokenizer_json() -> bytes:
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"Regex": r"\s\s+"}, "content": " "},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": _characters(), "unk_token": _UNKNOWN},
    }
    return msgspec.json.encode(content)


def scores(encoder: TfidfEncoder, texts: Sequence[str]) -> Floats:
    """Scores of normalised texts, float32 (n, classes)."""
    tokenizer = character_tokenizer(MAX_CHARS)
    return compute(lambda batch: run(encoder, batch), tokenizer, tokenizer.encode(texts), token_budget(encoder.idf.device))


def to_files(encoder: TfidfEncoder, stem: str) -> dict[str, bytes]:
    """Contents of the two files of an encoder, with names that start with `stem`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.named_parameters()}
    return {f"{stem}.json": msgspec.json.encode(encoder.terms), f"{stem}.safetensors": safetensors.torch.save(tensors)}


def from_files(read: Callable[[str], bytes], stem: str) -> TfidfEncoder:
    """Rebuild an encoder from the result of `to_files`.

    Args:
        read: Function that returns the contents of a file.
        stem: As for `to_files`.

    Raises:
        BundleError: If a file is missing or malformed.
    """
    with well_formed(f"{stem}.json, or {stem}.safetensors,"):
        terms = msgspec.json.decode(read(f"{stem}.json"), type=list[str])
        encoder = TfidfEncoder(terms, **safetensors.torch.load(read(f"{stem}.safetensors")))
    return encoder.eval().requires_grad_(False)
