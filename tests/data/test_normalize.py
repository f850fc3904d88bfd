import json
import sys
import typing
import unicodedata

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.config import Normalization
from reviewguard.data.confusables import CONFUSABLES
from reviewguard.data.normalize import NORMALIZERS, portable

ANY_TEXT = st.text(st.characters(), max_size=60)  # includes lone surrogates
# Characters that the normalisations change, so that they occur together more often than by chance.
TOUCHED = st.text(
    "\u0430\u0391\u0301\u00b4\ufe0f\ufb01"
    "\u2018\u201c\u00ab\u2013\u2026\u200b\u00ad\ufeff.,!?;: \t\n\u00a0\u3000aB\u0130\u03a3'-_",
    max_size=30,
)


@pytest.mark.parametrize(
    ("scheme", "text", "expected"),
    [
        ("typography", "It\u2019s  \u201cgood\u201d\n\u2014 really\u2026", 'It\'s "good" - really...'),
        ("typography", "\u201aa\u201b \u201eb\u201f \u00abc\u00bb 5\u2032 6\u2033 `d\u00b4", "'a' \"b\" \"c\" 5' 6\" 'd'"),
        ("typography", "\u2010\u2011\u2012\u2013\u2014\u2015\u2212-", "-" * 8),
        ("typography", "so\u00adft \u200bzero\u200c\u200d\u2060\ufeff", "soft zero"),
        ("typography", "Good , cheap . Nice ! Why ? a ; b : c", "Good, cheap. Nice! Why? a; b: c"),
        ("typography", "wait . . .", "wait..."),
        ("typography", " \tGOOD\u00a0 \u3000value\r\n", "GOOD value"),
        ("typography", "left ( right ) - \u00e9\u00df \U0001f600", "left ( right ) - \u00e9\u00df \U0001f600"),
        ("unicode-english", "\u0440\u0435\u0430\u0441\u0435 \u039a\u0435tt\u04cf\u0435", "peace Kettie"),
        (
            "unicode-english",
            "\uff27\uff4f\uff4f\uff44 \U0001d41b\U0001d428\U0001d428\U0001d424, \ufb01ne\u2026",
            "Good book, fine...",
        ),
        ("unicode-english", "z\u200be\ufe0fr\u00ado\U000e0061 w\u2063idth\u3164", "zero width"),
        ("unicode-english", "caf\u0435\u0301, na\u00efve \u00dcber \u00b4a\u00b4", "caf\u00e9, na\u00efve \u00dcber 'a'"),
        ("unicode-english", "\u4f60\u597d \U0001f600 \u00df", "\u4f60\u597d \U0001f600 \u00df"),
        ("study", "It's GOOD!!  5/5,\nsnake_case \u2014 caf\u00e9", "it s good 5 5 snake_case caf\u00e9"),
        ("study", "?!", ""),
        ("none", " It\u2019s  \n GOOD \u200b!", " It\u2019s  \n GOOD \u200b!"),
        ("typography", "", ""),
        ("study", "", ""),
        ("none", "", ""),
    ],
)
def test_examples(scheme, text, expected):
    assert NORMALIZERS[scheme](text) == expected


def test_normalisations_match_the_settings():
    assert set(NORMALIZERS) == set(typing.get_args(Normalization))


@pytest.mark.parametrize("scheme", NORMALIZERS)
@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_normalisation_is_idempotent(scheme, text):
    once = NORMALIZERS[scheme](text)
    assert isinstance(once, str)
    assert NORMALIZERS[scheme](once) == once


@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_none_changes_only_unencodable_characters(text):
    encoded = NORMALIZERS["none"](text)
    encoded.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert encoded == text


def test_every_look_alike_is_replaced_by_its_letter():
    for letter, looks in CONFUSABLES.items():
        assert NORMALIZERS["unicode-english"](looks) == letter * len(looks)
    assert len(portable("unicode-english")) <= 60


@pytest.mark.parametrize("scheme", ["typography", "unicode-english", "study"])
@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_white_space_is_collapsed(scheme, text):
    assert NORMALIZERS[scheme](text) == " ".join(NORMALIZERS[scheme](text).split())
    assert NORMALIZERS[scheme](f"\n {text}\t") == NORMALIZERS[scheme](text)


@pytest.fixture(scope="module")
def portables() -> dict[str, tokenizers.normalizers.Normalizer]:
    """Each normalisation as the tokenizers library loads it from tokenizer.json."""
    plain = json.loads(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a")).to_str())
    made = {}
    for scheme in NORMALIZERS:
        steps = {"type": "Sequence", "normalizers": portable(scheme)}
        made[scheme] = tokenizers.Tokenizer.from_str(json.dumps({**plain, "normalizer": steps})).normalizer
    return made


# The tokenizers library uses Unicode 11, which lacks the compatibility forms of newer characters.
NEWER = "".join(
    chr(code)
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) not in ("Cs", "Cn")
    and tokenizers.normalizers.NFKC().normalize_str(chr(code)) != unicodedata.normalize("NFKC", chr(code))
)
# Excluded are lone surrogates, which Rust does not support, characters newer than Python's tables, and the capital sigma, which
# tokenizers lower-cases without regard to its neighbours.
COMMON = st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\u03a3" + NEWER)
MARKS = st.text(
    "\u2018\u201c\u00ab\u2013\u2026\u200b\u00ad\ufeff.,!?;: \t\n\x1c\x85\u00a0\u3000aB\u0130'-_5\u00b2\u0301",
    max_size=30,
)


@pytest.mark.parametrize("scheme", NORMALIZERS)
@settings(deadline=None)
@given(text=st.text(COMMON, max_size=60) | MARKS)
def test_portable_steps_normalise_identically(scheme, text, portables):
    assert portables[scheme].normalize_str(text) == NORMALIZERS[scheme](text)


@pytest.mark.parametrize("scheme", NORMALIZERS)
def test_portable_steps_normalise_every_character_identically(scheme, portables):
    """Characters are placed between letters, so that there is no final sigma."""
    assert len(NEWER) < 100
    known = (chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn"))
    text = " ".join(f"a{character}b" for character in known if character not in NEWER)
    assert portables[scheme].normalize_str(text) == NORMALIZERS[scheme](text)


def test_only_a_final_sigma_differs(portables):
    text = "\u039f\u03a3"
    assert NORMALIZERS["study"](text) == "\u03bf\u03c2"
    assert portables["study"].normalize_str(text) == "\u03bf\u03c3"


def test_none_has_no_portable_steps():
    assert portable("none") == []
