"""Small changes to a text that leave its meaning: attacks to test a classifier with, and augmentation to train it with.

Most attacks are those of RAID (Dugan et al. 2024, arXiv:2405.07940). Each is a function of the text and of a random generator;
`perturbed` seeds the generator by the text, so that neither the order nor the choice of rows changes what becomes of one.
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

#: Cyrillic and Greek letters that most fonts draw like the Latin ones.
_HOMOGLYPHS: Final = dict(
    zip("aceijopsxyABCEHIJKMOPSTXYZdhnquvw", "асеіјорѕхуАВСЕНІЈКМОРЅТХҮΖԁһոԛυνԝ", strict=True)  # noqa: RUF001
)
_INVISIBLE: Final = "\u200b\u200c\u2060\u00ad"
_VARIATION: Final = "\ufe0f"
#: Rows of a QWERTY keyboard: a slip hits the key beside.
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
    """A text under one change; always the same for the same text and seed.

    Args:
        text: To change. White space around it may go.
        name: A key of `ATTACKS` or `AUGMENTATIONS`.
        seed: Of the draws.
    """
    return (ATTACKS | AUGMENTATIONS)[name](text, _rng(f"{seed} {name} {text}"))


def augmented(text: str, share: float, kinds: tuple[Augmentation, ...], seed: int) -> str:
    """A training text, with this probability under one of the changes; one that would leave nothing is not made."""
    rng = _rng(f"{seed} {text}")
    if rng.random() >= share:
        return text
    changed = perturbed(text, rng.choice(kinds), seed)
    return changed if changed.strip() else text


def _rng(seed: str) -> random.Random:
    # Random encodes its seed, and half of a surrogate pair cannot be encoded.
    return random.Random(encodable(seed))  # noqa: S311 - nothing secret


def _at_letters(text: str, rng: random.Random, share: float, change: Callable[[str], str]) -> str:
    return _LETTER.sub(lambda found: change(found[0]) if rng.random() < share else found[0], text)


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
    return _ARTICLE.sub(lambda found: "" if rng.random() < 0.5 else found[0], text)


def _typo(word: str, rng: random.Random) -> str:
    """One slip of the keyboard: two letters change places, one is left out, doubled, or hit beside. The first letter stays."""
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    row = next(row for row in _KEYS if word[at].lower() in row)
    return word[:at] + row[row.index(word[at].lower()) - 1] + word[at + 1 :]


def _misspelling(text: str, rng: random.Random, share: float) -> str:
    return _WORD.sub(lambda found: _typo(found[0], rng) if rng.random() < share else found[0], text)


def _number_swaps(text: str, rng: random.Random) -> str:
    return re.sub(r"[0-9]", lambda found: rng.choice("0123456789") if rng.random() < 0.5 else found[0], text)


def _casual(text: str, rng: random.Random) -> str:
    """As typed on a phone: lower case, no apostrophes, short forms, most commas and full stops left out."""
    short = _CASUAL_WORDS.sub(lambda found: _CASUAL[found[0].lower()] if rng.random() < 0.7 else found[0], text)
    plain = short.lower().replace("'", "").replace("\u2019", "")
    return re.sub(r"[.,;:]", lambda found: "" if rng.random() < 0.6 else found[0], plain)


def _first(text: str, _: random.Random, words: int) -> str:
    return " ".join(text.split()[:words])


def _case(text: str, rng: random.Random) -> str:
    """All in lower case, or a twentieth of the letters in the other case."""
    return text.lower() if rng.random() < 0.5 else _case_swaps(text, rng)


def _snippet(text: str, rng: random.Random) -> str:
    """Half the time one to three sentences in a row; else, and of a single sentence, a run of 8 to 40 words, often the first."""
    sentences = _SENTENCE.split(text.strip())
    if len(sentences) > 1 and rng.random() < 0.5:
        start = rng.randrange(len(sentences))
        return " ".join(sentences[start : start + rng.randint(1, 3)])
    words = text.split()
    length = rng.randint(8, 40)
    start = rng.choice((0, rng.randrange(max(len(words) - length, 0) + 1)))
    return " ".join(words[start : start + length])


#: What `stress` tests, by name.
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
#: What training texts can be changed by, by name.
AUGMENTATIONS: Final[dict[str, Perturb]] = {
    "case": _case,
    "punctuation": _no_punctuation,
    "misspelling": partial(_misspelling, share=0.12),
    "articles": _articles,
    "casual": _casual,
    "snippet": _snippet,
}
