"""Attacks and augmentations: their effect, and that they are deterministic."""

from __future__ import annotations

import re
import typing
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reviewguard.config import Augmentation
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.perturb import ATTACKS, AUGMENTATIONS, Attack, augmented, perturbed

TEXT = "I really love the kettle, and its lid doesn't rattle. You are going to want 2 of them because a pair is $25!"
NAMES = [*ATTACKS, *AUGMENTATIONS]


def test_names_match_the_types() -> None:
    assert set(ATTACKS) == set(typing.get_args(Attack))
    assert set(AUGMENTATIONS) == set(typing.get_args(Augmentation))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(text=st.text(st.characters(), max_size=80) | st.text("ab AB,. the'2", max_size=60))  # includes lone surrogates
@example(text="\ud800 a kettle")
def test_changes_are_deterministic(name: str, text: str) -> None:
    assert perturbed(text, name, 1) == perturbed(text, name, 1)
    assert perturbed("", name) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lower case", TEXT.lower()),
        (
            "no punctuation",
            "I really love the kettle and its lid doesn't rattle You are going to want 2 of them because a pair is $25",
        ),
        ("first 10 words", "I really love the kettle, and its lid doesn't rattle."),
        ("first 40 words", TEXT),
    ],
)
def test_deterministic_attacks(name: Attack, expected: str) -> None:
    assert perturbed(TEXT, name) == expected


def test_homoglyphs_are_undone_by_normalisation() -> None:
    changed = perturbed(TEXT, "homoglyphs 100 %")
    assert not set("aceiopy") & set(changed)
    assert len(changed) == len(TEXT)
    assert NORMALIZERS["unicode-english"](changed) == TEXT


@pytest.mark.parametrize("name", ["invisible characters", "variation selectors"])
def test_invisible_characters_are_invisible(name: Attack) -> None:
    changed = perturbed(TEXT, name)
    assert len(changed) > len(TEXT)
    assert "".join(item for item in changed if item in TEXT or unicodedata.category(item) not in ("Cf", "Mn")) == TEXT
    assert NORMALIZERS["unicode-english"](changed) == TEXT


def test_shares_of_changed_characters_are_as_specified() -> None:
    long = f"{TEXT} " * 300
    letters = sum(item.isalpha() for item in long)
    swapped = sum(a != b for a, b in zip(perturbed(long, "case swaps"), long, strict=True))
    assert 0.03 < swapped / letters < 0.07
    articles = len(re.findall(r"\b(?:a|the) ", long))
    assert 0.3 < (len(re.findall(r"\b(?:a|the) ", perturbed(long, "article deletion")))) / articles < 0.7
    words = long.split()
    for name, share in (("misspelling 8 %", 0.08), ("misspelling 20 %", 0.2)):
        wrong = sum(a != b for a, b in zip(perturbed(long, name).split(), words, strict=True))
        long_words = sum(len(re.sub(r"[^A-Za-z]", "", word)) >= 4 for word in words)
        assert share * 0.7 < wrong / long_words < share * 1.3
    assert perturbed(long, "number swaps") != long
    assert re.sub(r"\d", "", perturbed(long, "number swaps")) == re.sub(r"\d", "", long)
    assert perturbed(long, "doubled spaces").split() == words


def test_casual_style() -> None:
    changed = perturbed(TEXT, "casual style")
    assert changed == changed.lower()
    assert "'" not in changed
    assert {"u", "gonna", "cuz", "rly"} & set(changed.split())


def test_a_snippet_is_part_of_the_text() -> None:
    long = " ".join(f"Sentence {row} has a few more words." for row in range(30))
    cuts = [perturbed(long, "snippet", seed) for seed in range(60)]
    assert all(cut in long for cut in cuts)
    assert {cut.endswith(".") for cut in cuts} == {True, False}
    assert sum(long.startswith(cut) for cut in cuts) > 10
    one_sentence = " ".join(map(str, range(100)))
    cut = perturbed(one_sentence, "snippet")
    assert cut in one_sentence
    assert 8 <= len(cut.split()) <= 40


def test_a_share_of_the_texts_is_augmented() -> None:
    texts = [f"The kettle number {row}, it boils the water." for row in range(500)]
    changed = [augmented(text, 0.3, ("casual",), 0) for text in texts]
    assert 0.2 < sum(a != b for a, b in zip(texts, changed, strict=True)) / len(texts) < 0.4
    assert all(item == text or item.islower() for item, text in zip(changed, texts, strict=True))
    assert [augmented(text, 0.0, ("case",), 0) for text in texts] == texts
    for text in ("...", " . ! "):
        assert augmented(text, 1.0, ("punctuation",), 0) == text
    assert augmented("A \ud800 Kettle", 1.0, ("casual",), 0) == "a \ud800 kettle"
