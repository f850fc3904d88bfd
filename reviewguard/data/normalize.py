"""Named text normalisations, applied identically in training and prediction.

A model records the name of its normalisation. A released normalisation therefore never changes; an improved one gets a new name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from reviewguard.data.confusables import CONFUSABLES

_ONE_STYLE: Final = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"),
        "\u2026": "...",
    }
)
#: NFKC would decompose the acute accent into a space and a combining mark.
_ACUTE: Final = str.maketrans({"\u00b4": "'"})
#: Invisible code points: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt.
_IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IS_IGNORABLE: Final = re.compile(f"[{_IGNORABLE}]")
_LATIN: Final = str.maketrans({look: letter for letter, looks in CONFUSABLES.items() for look in looks})
_SPACE_BEFORE_PUNCTUATION: Final = re.compile(r" +([,.!?;:])")
_PUNCTUATION: Final = re.compile(r"[^\w\s]")


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can contain but no encoding can represent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _collapse(text: str) -> str:
    return " ".join(text.split())


def typography(text: str) -> str:
    """Remove differences that only reveal which file a text came from; case and punctuation are kept.

    White space is collapsed, spaces before punctuation are removed, quotes and dashes are unified, and invisible characters are
    dropped.
    """
    return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", _collapse(encodable(text).translate(_ONE_STYLE)))


def unicode_english(text: str) -> str:
    """Apply `typography`, and undo evasion by look-alike and invisible characters. For English texts.

    Compatibility characters are normalised (NFKC: full-width, mathematical and other styled letters), letters of other scripts
    that look like Latin letters are replaced by them (Unicode Technical Standard 39), and all invisible characters are removed.
    """
    if text.isascii():
        return typography(text)
    visible = _IS_IGNORABLE.sub("", encodable(text)).translate(_ACUTE)
    plain = unicodedata.normalize("NFKC", visible).translate(_ONE_STYLE).translate(_LATIN)
    # A replaced letter may compose with a combining accent that follows it.
    return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", _collapse(unicodedata.normalize("NFC", plain)))


def study(text: str) -> str:
    """Convert to lower case and strip punctuation, as in the study; this makes generated text harder to detect."""
    return _collapse(_PUNCTUATION.sub(" ", encodable(text).lower()))


def none(text: str) -> str:
    """Leave the text unchanged, except for characters that cannot be encoded."""
    return encodable(text)


NORMALIZERS: Final[dict[str, Callable[[str], str]]] = {
    "typography": typography,
    "unicode-english": unicode_english,
    "study": study,
    "none": none,
}


# The characters that `str.split` splits at, and those that `\w` matches. Other engines define `\s` and `\w` differently.
_SPACE: Final = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD: Final = r"\p{L}\p{N}_"


def portable(name: str) -> list[dict[str, Any]]:
    """Express a normalisation as steps of a Hugging Face tokenizer, for runtimes without reviewguard; empty for "none".

    The patterns behave identically in Oniguruma (tokenizers) and in JavaScript (transformers.js). Only `study` differs, in one
    letter: tokenizers convert a capital sigma at the end of a word to another lower-case form.

    Args:
        name: A key of `NORMALIZERS`.

    Returns:
        Entries for the `normalizer` of tokenizer.json, in order.
    """
    trimmed = {"type": "Strip", "strip_left": True, "strip_right": True}
    styles: dict[str, str] = {}
    for character, style in _ONE_STYLE.items():
        styles[style or ""] = styles.get(style or "", "") + chr(character)
    one_style = [_replace(f"[{characters}]", style) for style, characters in styles.items()]
    spaces = [_replace(f"[{_SPACE}]+", " "), trimmed, _replace(" (?=[,.!?;:])", "")]
    if name == "typography":
        return [*one_style, *spaces]
    if name == "unicode-english":
        folded = [_replace(f"[{looks}]", letter) for letter, looks in CONFUSABLES.items()]
        ignorable, acute = _replace(f"[{_IGNORABLE}]", ""), _replace("\u00b4", "'")
        # The preceding steps have already removed the characters of the other styles.
        quotes = [_replace(f"[{characters}]", style) for style, characters in styles.items() if style in ("'", '"', "-")]
        return [ignorable, acute, {"type": "NFKC"}, *quotes, *folded, {"type": "NFC"}, *spaces]
    if name == "study":
        return [{"type": "Lowercase"}, _replace(f"[^{_WORD}]+", " "), trimmed]
    return []


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
