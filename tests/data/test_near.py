import functools
import itertools
import re

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reviewguard.data.near import clusters, fold
from reviewguard.data.reviews import read

VOCABULARY = [f"word{number}" for number in range(4000)]


@functools.cache
def _trigrams(text: str) -> set[tuple[str, ...]]:
    # Independent of the package's implementation.
    words = re.sub(r"[^\w]+", " ", text.lower()).split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _jaccard(a: str, b: str) -> float:
    return len(_trigrams(a) & _trigrams(b)) / len(_trigrams(a) | _trigrams(b))


def _words(rng, n: int) -> list[str]:
    return rng.choice(VOCABULARY, n).tolist()


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("It's GOOD,  really\n-- good!", "it s good really good"),
        ("Stra\u00dfe", "strasse"),
        ("", ""),
        ("?!", "?!"),
        ("\ud800a", "a"),
    ],
)
def test_fold(text, folded):
    assert fold(text) == folded


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_variants_are_grouped_and_other_texts_are_not(threshold):
    texts = [
        "a fine kettle that boils fast and pours well",
        "a fine kettle that boils fast and pours well",
        "A FINE kettle; that boils fast,  and pours well!!",
        "the strap broke on the second day and nobody answered",
        "",
        "ok",
        "OK!",
    ]
    assert clusters(texts, threshold).tolist() == [0, 0, 0, 1, 2, 3, 3]


def test_a_long_text_with_one_changed_word():
    words = _words(np.random.default_rng(0), 60)
    edited = " ".join([*words[:30], "something", *words[31:]])
    assert clusters([" ".join(words), edited], 0.8).tolist() == [0, 0]
    assert clusters([" ".join(words), edited], 0.95).tolist() == [0, 1]


def test_a_chain_is_one_group():
    words = _words(np.random.default_rng(0), 80)
    chain = [" ".join(words[start : start + 60]) for start in range(0, 20, 5)]
    assert _jaccard(chain[0], chain[1]) >= 0.8 > _jaccard(chain[0], chain[-1])
    assert clusters(chain, 0.8).tolist() == [0] * 4
    assert clusters([chain[0], chain[-1]], 0.8).tolist() == [0, 1]


@pytest.mark.parametrize("shared", [7, 8, 9])
def test_threshold_is_inclusive(shared):
    # Ten trigrams in total, some of which are shared: a similarity of 0.7, 0.8 and 0.9.
    words = _words(np.random.default_rng(1), 12)
    texts = [" ".join(words[: shared + 2]), " ".join(words)]
    assert _jaccard(*texts) == shared / 10
    assert clusters(texts, 0.8).tolist() == ([0, 0] if shared >= 8 else [0, 1])


def test_all_planted_duplicates_are_detected(sample):
    originals = [text for text in read(sample).texts if text]
    assert len(set(clusters(originals, 0.8).tolist())) == len(originals)
    variants = {
        "upper case": str.upper,
        "no punctuation": fold,
        "spaced": lambda text: f" {text.replace(' ', '  ')} !",
        "last word": lambda text: " ".join([*fold(text).split()[:-1], "kumquat"]),
        "one word more": lambda text: f"Kumquat! {text}",
    }
    planted = [variant(text) for text in originals for variant in variants.values()]
    result = clusters(originals + planted, 0.8)
    originals_of = np.repeat(np.arange(len(originals)), len(variants))
    for number, (text, variant) in enumerate(zip(np.repeat(originals, len(variants)), planted, strict=True)):
        same = result[len(originals) + number] == result[originals_of[number]]
        assert same == (_jaccard(text, variant) >= 0.8), (text, variant)
    # No two originals are joined through their variants.
    assert len(set(result[: len(originals)].tolist())) == len(originals)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9])
def test_groups_match_brute_force(threshold):
    rng = np.random.default_rng(3)
    texts = []
    for _ in range(40):
        base = _words(rng, 45)
        for edits in (0, 0, 1, 4, 10):
            words = list(base)
            for place in rng.integers(45, size=edits):
                words[place] = rng.choice(VOCABULARY)
            texts.append(" ".join(words))
    texts = [texts[i] for i in rng.permutation(len(texts))]
    pairs = {(i, j): _jaccard(texts[i], texts[j]) for i, j in itertools.combinations(range(len(texts)), 2)}
    alike = [pair for pair, similarity in pairs.items() if similarity >= threshold]
    assert 40 <= len(alike) <= 1000
    result = clusters(texts, threshold)
    missed = [(i, j) for i, j in alike if pairs[i, j] >= min(1, threshold + 0.1) and result[i] != result[j]]
    assert missed == []
    # Each group is connected by pairs with at least this similarity.
    edges = coo_array((np.ones(len(alike)), tuple(zip(*alike, strict=True))), shape=(len(texts), len(texts)))
    true = connected_components(edges, directed=False)[1]
    assert len(set(zip(result.tolist(), true.tolist(), strict=True))) == len(set(result.tolist()))


def test_groups_do_not_depend_on_the_order(sample):
    rng = np.random.default_rng(0)
    texts = [text for text in read(sample).texts if text][:60] * 2
    order = rng.permutation(len(texts))
    result, shuffled = clusters(texts, 0.8), clusters([texts[i] for i in order], 0.8)
    assert len(set(zip(result[order].tolist(), shuffled.tolist(), strict=True))) == 60


@pytest.mark.parametrize("texts", [[], ["one"]])
def test_empty_and_single_inputs(texts):
    result = clusters(texts, 0.8)
    assert (result.dtype, result.tolist()) == (np.int64, [0] * len(texts))
