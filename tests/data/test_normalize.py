import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewguard.config import Normalization
from reviewguard.data.normalize import NORMALIZERS

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates too
# Characters that the schemes touch, so that they meet each other more often than by chance.
TOUCHED = st.text("\u2018\u201c\u00ab\u2013\u2026\u200b\u00ad\ufeff.,!?;: \t\n\u00a0\u3000aB\u0130\u03a3'-_", max_size=30)


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


def test_schemes_are_those_of_the_settings():
    assert set(NORMALIZERS) == set(typing.get_args(Normalization))


@pytest.mark.parametrize("scheme", NORMALIZERS)
@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_any_text_is_normalised_once_and_for_all(scheme, text):
    once = NORMALIZERS[scheme](text)
    assert isinstance(once, str)
    assert NORMALIZERS[scheme](once) == once


@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_none_changes_only_what_cannot_be_encoded(text):
    kept = NORMALIZERS["none"](text)
    kept.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert kept == text


@pytest.mark.parametrize("scheme", ["typography", "study"])
@settings(deadline=None)
@given(text=ANY_TEXT | TOUCHED)
def test_white_space_is_collapsed(scheme, text):
    assert NORMALIZERS[scheme](text) == " ".join(NORMALIZERS[scheme](text).split())
    assert NORMALIZERS[scheme](f"\n {text}\t") == NORMALIZERS[scheme](text)
