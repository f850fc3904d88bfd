"""Tokenisation, shared by training and prediction, and the limits outside which a text is out-of-distribution."""

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

#: Texts are cut to this length before tokenisation, so that a megabyte of text costs no more than a long review. The limit
#: allows 195 characters for each of 512 tokens.
MAX_CHARS: Final = 100_000
#: Share of training texts within the limit for language, and within that for length; see benchmarks/out_of_distribution.py.
COVERED: Final = 0.995
#: A text with this many tokens, about ten words, is never too short, however long the training texts are.
ENOUGH: Final = 16

_COUNTED_AT_ONCE: Final = 4096
#: Punctuation is not counted as a piece of a word.
_PUNCTUATION: Final = re.compile(r"[^\w\s]")

Batch = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text, with statistics of the text.

    Attributes:
        ids: Token ids, special tokens included.
        truncated: Whether the end of the text was cut off.
        fertility: Average number of pieces per word of the whole text (Rust et al. 2021, arXiv:2012.15613). It is high for
            languages that the vocabulary does not cover, and infinite if no word is known.
        words: Number of words of the whole text, separated by white space.
        more: Token ids of further windows, special tokens included; empty unless the text was tokenised in windows.
    """

    ids: list[int]
    truncated: bool
    fertility: float
    words: int
    more: tuple[list[int], ...] = ()


class Tokenizer:
    """A Hugging Face fast tokenizer with truncation that does not recognise special tokens inside a text.

    A literal `[SEP]` or `</s>` in a review is tokenised as plain characters.

    Attributes:
        max_length: Maximum number of tokens of a text or window, special tokens included.
        room: Maximum number of tokens without special tokens; the overlap of windows is smaller.
        pad_id: Token id that pads the rows of a batch.
    """

    def __init__(self, tokenizer_json: bytes, tokenizer_config: bytes, max_length: int) -> None:
        """Create a tokenizer from the contents of tokenizer.json and tokenizer_config.json.

        Args:
            tokenizer_json: Contents of tokenizer.json.
            tokenizer_config: Contents of tokenizer_config.json; preserved for other libraries.
            max_length: Maximum number of tokens of a text, special tokens included.

        Raises:
            BundleError: If either file is malformed.
        """
        try:
            self._plain = tokenizers.Tokenizer.from_buffer(tokenizer_json)
            self._config = json.loads(tokenizer_config)
            if not isinstance(self._config, dict):
                raise ValueError("tokenizer_config.json is not an object")  # noqa: TRY004 - the except below covers all malformed input
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
        # Padded positions are always masked, so any id of the vocabulary is valid.
        self.pad_id = self._id_of(self._config.get("pad_token")) or 0
        self._added = self._plain.num_special_tokens_to_add(is_pair=False)
        self.room = max_length - self._added
        special = self._plain.encode("a").special_tokens_mask
        self._before = special.index(0) if 0 in special else 0  # number of special tokens before a text
        # SentencePiece models do not expose their unknown token; the settings do.
        self._unknown_id = self._id_of(self._config.get("unk_token") or getattr(self._plain.model, "unk_token", None))

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes, bytes, int]]:
        # The pickled state of a tokenizer does not include `encode_special_tokens`.
        return type(self), self._made_of

    def _id_of(self, token: object) -> int | None:
        name = token.get("content") if isinstance(token, dict) else token
        return self._plain.token_to_id(name) if isinstance(name, str) else None

    def encode(self, texts: Sequence[str], overlap: int = 0, max_windows: int = 1) -> list[Encoded]:
        """Tokenise texts.

        Args:
            texts: Normalised texts.
            overlap: Number of tokens that consecutive windows share.
            max_windows: Maximum number of windows of a text longer than `max_length` tokens; 1: the text is truncated.
        """
        cut = [encodable(text[:MAX_CHARS]) for text in texts]
        encoded = []
        for encoding, text, prefix in zip(self._cutting(overlap).encode_batch_fast(cut), texts, cut, strict=True):
            # Each access to an attribute of an encoding copies its list.
            windows = [encoding.ids, *(more.ids for more in encoding.overflowing)]
            # Without special tokens, an empty text has no tokens, but the model needs at least one.
            ids, truncated = windows[0] or [self.pad_id], len(windows) > max_windows or len(text) > MAX_CHARS
            words = len(prefix.split())
            # Tokens that windows share are counted once.
            start, end = self._before, self._before + overlap
            distinct = [windows[0], *([*window[:start], *window[end:]] for window in windows[1:])]
            fertility = self._fertility(prefix, words, distinct)
            encoded.append(Encoded(ids, truncated, fertility, words, tuple(windows[1:max_windows])))
        return encoded

    def _cutting(self, overlap: int) -> tokenizers.Tokenizer:
        """The tokenizer that splits texts into windows of `max_length` tokens with this overlap."""
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
        """Number of tokens of each text, without truncation or special tokens, int64 (n,)."""
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
        """Contents of tokenizer.json and tokenizer_config.json for a bundle, both with this maximum length.

        Args:
            normalization: Normalisation that is added to the tokenizer as its first step, so that other libraries tokenise as
                reviewguard does; texts that are already normalised do not change.
        """
        content, settings = json.loads(self._cut.to_str()), {**self._config, "model_max_length": self.max_length}
        if steps := portable(normalization):
            original = content["normalizer"]
            content["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *([original] if original else [])]}
            content["added_tokens"] = self._settled(content["added_tokens"], NORMALIZERS[normalization])
            # For tokenizer classes of an architecture, transformers replaces the normalizer in the file with its own.
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        return {
            "tokenizer.json": json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
            "tokenizer_config.json": json.dumps(settings, indent=1).encode(),
        }

    def _settled(self, tokens: list[dict[str, Any]], normalize: Callable[[str], str]) -> list[dict[str, Any]]:
        """Adjust the added tokens so that a normalizer in the tokenizer does not change their meaning.

        The tokenizers library normalises added tokens as well: a run of spaces would become the empty string, which matches
        everywhere. A token that cannot occur in a normalised text is renamed to a string that no text contains, so that other
        libraries do not match it before they normalise; if it is in the model's vocabulary, it is omitted. Token ids do not
        change.
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
    """Number of words of each text, int64 (n,), as used by thresholds by length."""
    return np.array([item.words for item in encoded], dtype=np.int64)


class DistributionLimits(NamedTuple):
    """Limits outside which a text is out-of-distribution; a share of `COVERED` of the training texts is within each.

    Attributes:
        max_fertility: Maximum number of pieces per word; None: too many training texts have no known word to set a limit.
        min_tokens: Minimum number of tokens; at most `ENOUGH`.
    """

    max_fertility: float | None
    min_tokens: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: list[str]) -> DistributionLimits:
        """Derive the limits from training texts."""
        encoded = tokenizer.encode(texts)
        most = np.quantile([item.fertility for item in encoded], COVERED, method="higher")
        least = np.quantile([len(item.ids) for item in encoded], 1 - COVERED, method="lower")
        return cls(float(most) if np.isfinite(most) else None, min(int(least), ENOUGH))
