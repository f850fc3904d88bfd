"""Small changes to a text that preserve its meaning: attacks for stress tests, and augmentations for training.

Most attacks come from RAID (Dugan et al. 2024, arXiv:2405.07940). Each is a function of the text and a random generator.
`perturbed` seeds the generator with the text, so that the result does not depend on the order or selection of rows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from reviewguard.config import Augmentation
from reviewguard.data.normalize import encodable

Perturb = Callable[[str, random.Random], str]
Attack = Literal[
    "homoglyphs 2 %",
    "homoglyphs 10 %",
    "homoglyphs 100 %",
    "invisible characters",
    "variation selectors",
    "case swaps",
    "lower case",
    "no punctuation",
    "doubled spaces",
    "article deletion",
    "misspelling 8 %",
    "misspelling 20 %",
    "number swaps",
    "casual style",
    "first 10 words",
    "first 20 words",
    "first 40 words",
]

#: Maps Latin letters to Cyrillic and Greek letters that look the same in most fonts.
_HOMOGLYPHS: Final = dict(
    zip("aceijopsxyABCEHIJKMOPSTXYZdhnquvw", "асеіјорѕхуАВСЕНІЈКМОРЅТХҮΖԁһոԛυνԝ", strict=True)  # noqa: RUF001
)
_INVISIBLE: Final = "\u200b\u200c\u2060\u00ad"
_VARIATION: Final = "\ufe0f"
#: Rows of a QWERTY keyboard; a typo may hit the neighbouring key.
_KEYS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_CASUAL: Final = {
    "you": "u",
    "your": "ur",
    "are": "r",
    "because": "cuz",
    "though": "tho",
    "really": "rly",
    "please": "pls",
    "thanks": "thx",
    "people": "ppl",
    "going to": "gonna",
    "want to": "wanna",
    "and": "&",
    "with": "w/",
    "do not": "dont",
    "does not": "doesnt",
    "it is": "its",
    "i am": "im",
}
_CASUAL_WORDS: Final = re.compile(rf"\b({'|'.join(sorted(_CASUAL, key=len, reverse=True))})\b", re.IGNORECASE)
_LETTER: Final = re.compile(r"[^\W\d_]")
_WORD: Final = re.compile(r"\b[A-Za-z]{4,}\b")
_PUNCTUATION: Final = re.compile(r"[.,;:!?\"()]")
_ARTICLE: Final = re.compile(r"\b(?:a|an|the) ", re.IGNORECASE)
_SENTENCE: Final = re.compile(r"(?<=[.!?]) +")


def perturbed(text: str, name: Attack | Augmentation, seed: int = 0) -> str:
    """Apply one change to a text; equal texts and seeds give equal results.

    Args:
        text: Text to change. Leading and trailing white space may be removed.
        name: A key of `ATTACKS` or `AUGMENTATIONS`.
        seed: Random seed.
    """
    return (ATTACKS | AUGMENTATIONS)[name](text, _rng(f"{seed} {name} {text}"))


def augmented(text: str, share: float, kinds: tuple[Augmentation, ...], seed: int) -> str:
    """Change a training text in one of the given ways, with probability `share`; a change that would empty it is skipped."""
    rng = _rng(f"{seed} {text}")
    if rng.random() >= share:
        return text
    changed = perturbed(text, rng.choice(kinds), seed)
    return changed if changed.strip() else text


def _rng(seed: str) -> random.Random:
    # Random encodes its seed, and a lone surrogate cannot be encoded.
    return random.Random(encodable(seed))  # noqa: S311 - not used for security


def _at_letters(text: str, rng: random.Random, share: float, change: Callable[[str], str]) -> str:
    return _LETTER.sub(lambda match: change(match[0]) if rng.random() < share else match[0], text)


def _homoglyphs(text: str, rng: random.Random, share: float) -> str:
    return _at_letters(text, rng, share, lambda letter: _HOMOGLYPHS.get(letter, letter))


def _invisible(text: str, rng: random.Random) -> str:
    return _at_letters(text, rng, 0.2, lambda letter: letter + rng.choice(_INVISIBLE))


def _variation(text: str, rng: random.Random) -> str:
    return _at_letters(text, rng, 0.2, lambda letter: letter + _VARIATION)


def _case_swaps(text: str, rng: random.Random) -> str:
    return _at_letters(text, rng, 0.05, str.swapcase)


def _lower(text: str, _: random.Random) -> str:
    return text.lower()


def _no_punctuation(text: str, _: random.Random) -> str:
    return _PUNCTUATION.sub("", text)


def _doubled_spaces(text: str, rng: random.Random) -> str:
    return re.sub(" ", lambda _: "  " if rng.random() < 0.2 else " ", text)


def _articles(text: str, rng: random.Random) -> str:
    return _ARTICLE.sub(lambda match: "" if rng.random() < 0.5 else match[0], text)


def _typo(word: str, rng: random.Random) -> str:
    """One typing error: two letters swapped, or one omitted, doubled or replaced by its neighbour. The first letter is kept."""
    index = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:index] + word[index + 1] + word[index] + word[index + 2 :]
    if kind == 1:
        return word[:index] + word[index + 1 :]
    if kind == 2:
        return word[:index] + word[index] + word[index:]
    row = next(row for row in _KEYS if word[index].lower() in row)
    return word[:index] + row[row.index(word[index].lower()) - 1] + word[index + 1 :]


def _misspelling(text: str, rng: random.Random, share: float) -> str:
    return _WORD.sub(lambda match: _typo(match[0], rng) if rng.random() < share else match[0], text)


def _number_swaps(text: str, rng: random.Random) -> str:
    return re.sub(r"[0-9]", lambda match: rng.choice("0123456789") if rng.random() < 0.5 else match[0], text)


def _casual(text: str, rng: random.Random) -> str:
    """Text as typed on a phone: lower case, no apostrophes, short forms, few commas and full stops."""
    short = _CASUAL_WORDS.sub(lambda match: _CASUAL[match[0].lower()] if rng.random() < 0.7 else match[0], text)
    plain = short.lower().replace("'", "").replace("\u2019", "")
    return re.sub(r"[.,;:]", lambda match: "" if rng.random() < 0.6 else match[0], plain)


def _first(text: str, _: random.Random, words: int) -> str:
    return " ".join(text.split()[:words])


def _case(text: str, rng: random.Random) -> str:
    """The whole text in lower case, or a twentieth of its letters with swapped case."""
    return text.lower() if rng.random() < 0.5 else _case_swaps(text, rng)


def _snippet(text: str, rng: random.Random) -> str:
    """One to three consecutive sentences, or 8 to 40 consecutive words, often from the beginning; equally likely if possible."""
    sentences = _SENTENCE.split(text.strip())
    if len(sentences) > 1 and rng.random() < 0.5:
        start = rng.randrange(len(sentences))
        return " ".join(sentences[start : start + rng.randint(1, 3)])
    words = text.split()
    length = rng.randint(8, 40)
    start = rng.choice((0, rng.randrange(max(len(words) - length, 0) + 1)))
    return " ".join(words[start : start + length])


#: The attacks of a stress test, by name.
ATTACKS: Final[dict[str, Perturb]] = {
    "homoglyphs 2 %": partial(_homoglyphs, share=0.02),
    "homoglyphs 10 %": partial(_homoglyphs, share=0.1),
    "homoglyphs 100 %": partial(_homoglyphs, share=1.0),
    "invisible characters": _invisible,
    "variation selectors": _variation,
    "case swaps": _case_swaps,
    "lower case": _lower,
    "no punctuation": _no_punctuation,
    "doubled spaces": _doubled_spaces,
    "article deletion": _articles,
    "misspelling 8 %": partial(_misspelling, share=0.08),
    "misspelling 20 %": partial(_misspelling, share=0.2),
    "number swaps": _number_swaps,
    "casual style": _casual,
    "first 10 words": partial(_first, words=10),
    "first 20 words": partial(_first, words=20),
    "first 40 words": partial(_first, words=40),
}
#: The augmentations of training texts, by name.
AUGMENTATIONS: Final[dict[str, Perturb]] = {
    "case": _case,
    "punctuation": _no_punctuation,
    "misspelling": partial(_misspelling, share=0.12),
    "articles": _articles,
    "casual": _casual,
    "snippet": _snippet,
}
