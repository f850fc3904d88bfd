"""Texts to token ids: the only tokenisation path, in training and at prediction; and which texts it says are familiar."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import tokenizers
from numpy.typing import NDArray

from reviewguard.data.normalize import NORMALIZERS, encodable, portable
from reviewguard.errors import BundleError

#: A text is cut here before it is tokenised, so that a megabyte of text costs no more than a long review. It leaves
#: 195 characters for each of 512 tokens.
MAX_CHARS: Final = 100_000
#: Share of training texts that are familiar in language, and in length; benchmarks/out_of_distribution.py says what comes of it.
FAMILIAR: Final = 0.995
#: With so many tokens, about ten words, a text is never too short, however long the training texts are.
ENOUGH: Final = 16

_COUNTED_AT_ONCE: Final = 4096
#: Not counted among the pieces of words.
_PUNCTUATION: Final = re.compile(r"[^\w\s]")

Batch = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text, and what they tell of it.

    Attributes:
        ids: Special tokens included.
        truncated: Whether the end of the text was cut off.
        fertility: Pieces that a word of the whole text falls into, on average (the term is that of Rust et al. 2021,
            arXiv:2012.15613). Words of a language that the vocabulary was not made for fall into many; where none is known, it is
            infinite.
        words: Of the whole text: what white space separates.
        more: Token ids of further windows, special tokens included; only where the text was tokenised in windows.
    """

    ids: list[int]
    truncated: bool
    fertility: float
    words: int
    more: tuple[list[int], ...] = ()


class Tokenizer:
    """A Hugging Face fast tokenizer with truncation, and without special tokens from inside a text.

    A literal `[SEP]` or `</s>` in a review is read as the characters that it is written with.

    Attributes:
        max_length: Tokens kept of a text, or of each of its windows, special tokens included.
        room: Of them, those that are left for the text; windows overlap by fewer.
        pad_id: What fills up the rows of a batch.
    """

    def __init__(self, tokenizer_json: bytes, tokenizer_config: bytes, max_length: int) -> None:
        """Build from the contents of tokenizer.json and tokenizer_config.json.

        Args:
            tokenizer_json: Contents of tokenizer.json.
            tokenizer_config: Contents of tokenizer_config.json; kept for other libraries.
            max_length: Tokens kept of a text, special tokens included.

        Raises:
            BundleError: If either is malformed.
        """
        try:
            self._plain = tokenizers.Tokenizer.from_buffer(tokenizer_json)
            self._config = json.loads(tokenizer_config)
            if not isinstance(self._config, dict):
                raise ValueError("tokenizer_config.json is not an object")  # noqa: TRY004 - one except for all malformed input
        except Exception as error:  # tokenizers raises a bare Exception
            raise BundleError(f"the tokenizer files are malformed: {error}") from error
        self._plain.no_padding()
        self._plain.no_truncation()
        self._plain.encode_special_tokens = True
        self._cut = tokenizers.Tokenizer.from_str(self._plain.to_str())
        self._cut.encode_special_tokens = True
        self._cut.enable_truncation(max_length)
        self._cutters = {0: self._cut}
        self.max_length = max_length
        self._made_of = tokenizer_json, tokenizer_config, max_length
        # A padded position is masked out everywhere, so any id in the vocabulary would do.
        self.pad_id = self._id_of(self._config.get("pad_token")) or 0
        self._added = self._plain.num_special_tokens_to_add(is_pair=False)
        self.room = max_length - self._added
        special = self._plain.encode("a").special_tokens_mask
        self._before = special.index(0) if 0 in special else 0  # special tokens in front of a text
        # A SentencePiece model does not tell; the settings do.
        self._unknown_id = self._id_of(self._config.get("unk_token") or getattr(self._plain.model, "unk_token", None))

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes, bytes, int]]:
        # A tokenizer's own state forgets `encode_special_tokens`.
        return type(self), self._made_of

    def _id_of(self, token: object) -> int | None:
        name = token.get("content") if isinstance(token, dict) else token
        return self._plain.token_to_id(name) if isinstance(name, str) else None

    def encode(self, texts: Sequence[str], overlap: int = 0, max_windows: int = 1) -> list[Encoded]:
        """Tokenise texts.

        Args:
            texts: Already normalised.
            overlap: Tokens that a window shares with the one before.
            max_windows: Windows kept of a text of more than `max_length` tokens; 1: the text is truncated.
        """
        cut = [encodable(text[:MAX_CHARS]) for text in texts]
        encoded = []
        for encoding, text, read in zip(self._cutting(overlap).encode_batch_fast(cut), texts, cut, strict=True):
            # Each look at an encoding copies its lists.
            found = [encoding.ids, *(more.ids for more in encoding.overflowing)]
            # A tokenizer without special tokens makes nothing of an empty text; the model needs something to read.
            ids, truncated = found[0] or [self.pad_id], len(found) > max_windows or len(text) > MAX_CHARS
            words = len(read.split())
            # What windows share is counted once.
            start, end = self._before, self._before + overlap
            fertility = self._fertility(read, words, [found[0], *([*more[:start], *more[end:]] for more in found[1:])])
            encoded.append(Encoded(ids, truncated, fertility, words, tuple(found[1:max_windows])))
        return encoded

    def _cutting(self, overlap: int) -> tokenizers.Tokenizer:
        """The tokenizer that cuts texts into windows of `max_length` tokens."""
        if overlap not in self._cutters:
            cutter = tokenizers.Tokenizer.from_str(self._plain.to_str())
            cutter.encode_special_tokens = True
            cutter.enable_truncation(self.max_length, stride=overlap)
            self._cutters[overlap] = cutter
        return self._cutters[overlap]

    def _fertility(self, text: str, words: int, windows: list[list[int]]) -> float:
        unknown = 0 if self._unknown_id is None else sum(window.count(self._unknown_id) for window in windows)
        pieces = sum(len(window) - self._added for window in windows) - unknown - len(_PUNCTUATION.findall(text))
        known = words - unknown
        return max(pieces, 0) / known if known > 0 else math.inf

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, uncut, special tokens not counted. Returns int64 (n,)."""
        counts: list[int] = []
        for start in range(0, len(texts), _COUNTED_AT_ONCE):
            chunk = [encodable(text) for text in texts[start : start + _COUNTED_AT_ONCE]]
            counts += [len(encoding.ids) for encoding in self._plain.encode_batch_fast(chunk, add_special_tokens=False)]
        return np.array(counts, dtype=np.int64)

    def pad(self, encoded: Sequence[Encoded]) -> Batch:
        """Stack texts into `input_ids` and `attention_mask`, both int64 (batch, longest), padded on the right."""
        longest = max(len(item.ids) for item in encoded)
        input_ids = np.full((len(encoded), longest), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(encoded), longest), dtype=np.int64)
        for row, item in enumerate(encoded):
            input_ids[row, : len(item.ids)] = item.ids
            attention_mask[row, : len(item.ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def files(self, normalization: str = "none") -> dict[str, bytes]:
        """tokenizer.json and tokenizer_config.json for a bundle, with this maximum length written into both.

        Args:
            normalization: The tokenizer itself applies this one first, so that other libraries do what ours does before it
                tokenises; a text that is normalised already stays as it is.
        """
        content, settings = json.loads(self._cut.to_str()), {**self._config, "model_max_length": self.max_length}
        if steps := portable(normalization):
            own = content["normalizer"]
            content["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *([own] if own else [])]}
            content["added_tokens"] = self._settled(content["added_tokens"], NORMALIZERS[normalization])
            # Under the name of an architecture, transformers makes a normalizer of its own and forgets that of the file.
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        return {
            "tokenizer.json": json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
            "tokenizer_config.json": json.dumps(settings, indent=1).encode(),
        }

    def _settled(self, tokens: list[dict[str, Any]], normalize: Callable[[str], str]) -> list[dict[str, Any]]:
        """Added tokens that mean after a normalisation what they meant before.

        The library normalises their contents too: a run of spaces would become the empty text, which is found everywhere. One
        that a normalised text cannot contain gets a name that no text contains, lest other libraries find it before they
        normalise; one of the model's own vocabulary is left out. Each keeps its id.
        """
        vocabulary, settled = self._plain.get_vocab(with_added_tokens=False), []
        for token in tokens:
            inside = f"a{token['content']}a"
            if token["special"] or normalize(inside) == inside:
                settled.append({**token, "normalized": token["normalized"] and normalize(token["content"]) == token["content"]})
            elif token["content"] not in vocabulary:
                settled.append({**token, "content": f"\0{token['id']}", "normalized": False})
        return settled


def word_counts(encoded: Sequence[Encoded]) -> NDArray[np.int64]:
    """Words of each text, int64 (n,), as thresholds by length count them."""
    return np.array([item.words for item in encoded], dtype=np.int64)


class Familiar(NamedTuple):
    """Limits that a share of `FAMILIAR` of the training texts keeps, each.

    Attributes:
        max_fertility: Pieces a word; None: more texts have no word that is known.
        min_tokens: Tokens read; `ENOUGH` at most.
    """

    max_fertility: float | None
    min_tokens: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: list[str]) -> Familiar:
        """Learn them from training texts."""
        encoded = tokenizer.encode(texts)
        most = np.quantile([item.fertility for item in encoded], FAMILIAR, method="higher")
        least = np.quantile([len(item.ids) for item in encoded], 1 - FAMILIAR, method="lower")
        return cls(float(most) if np.isfinite(most) else None, min(int(least), ENOUGH))
