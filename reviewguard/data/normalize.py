"""Named text normalisations, applied alike in training and at prediction.

A model records the name, so a scheme, once released, never changes: a better one gets a new name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_ONE_STYLE: Final = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"),
        "\u2026": "...",
    }
)
_SPACE_BEFORE_PUNCTUATION: Final = re.compile(r" +([,.!?;:])")
_PUNCTUATION: Final = re.compile(r"[^\w\s]")


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs replaced: JSON can carry one, and no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _collapse(text: str) -> str:
    return " ".join(text.split())


def typography(text: str) -> str:
    """Keep case and punctuation, and remove what only tells which file a text came from.

    White space is collapsed, no space stands before punctuation, quotes and dashes have one style, and invisible
    characters are dropped.
    """
    return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", _collapse(encodable(text).translate(_ONE_STYLE)))


def study(text: str) -> str:
    """Lower-case and strip punctuation, as the study did; generated text is told apart less well after it."""
    return _collapse(_PUNCTUATION.sub(" ", encodable(text).lower()))


def none(text: str) -> str:
    """Leave the text as it is, as far as it can be encoded."""
    return encodable(text)


NORMALIZERS: Final[dict[str, Callable[[str], str]]] = {"typography": typography, "study": study, "none": none}
