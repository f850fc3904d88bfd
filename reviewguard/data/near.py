"""Find near-duplicate texts by MinHash and verified Jaccard similarity of word trigrams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewguard.errors import requires

with requires("train"):
    from rensa import RMinHash, RMinHashLSH
    from scipy.cluster.hierarchy import DisjointSet

# Chinese and Japanese are written without spaces, so each of their characters counts as a word.
_WORDS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_PERMUTATIONS: Final = 128


def fold(text: str) -> str:
    """Remove differences in case, punctuation and white space; a text without words is returned unchanged."""
    return " ".join(_WORDS.findall(text.casefold())) or text


def _shingles(text: str) -> frozenset[str]:
    words = fold(text).split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def clusters(texts: Sequence[str], threshold: float) -> NDArray[np.int64]:
    """Group near-duplicate texts.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997; rensa's implementation) and are verified
    by their exact Jaccard similarity, so a hash collision never joins a pair. As with every such index, a pair just above the
    threshold may be missed with a small probability; below a threshold of 0.2, many pairs are missed.

    Args:
        texts: n texts.
        threshold: Jaccard similarity of word trigrams in (0, 1]; case and punctuation are ignored.

    Returns:
        Group numbers, int64 (n,); texts joined by a chain of near-duplicate pairs share a number.
    """
    shingles = [_shingles(text) for text in texts]
    # The bands are chosen for a lower threshold than requested: extra candidates are cheap, missed pairs are not.
    bands = next(b for b in (8, 16, 32, 64) if (1 / b) ** (b / _PERMUTATIONS) <= max(0.8 * threshold, 0.15))
    index = RMinHashLSH(threshold, _PERMUTATIONS, bands)
    joined = DisjointSet(range(len(texts)))
    first: dict[frozenset[str], int] = {}
    for row, trigrams in enumerate(shingles):
        if first.setdefault(trigrams, row) != row:
            joined.merge(row, first[trigrams])
            continue  # the index already holds an identical set
        sketch = RMinHash(_PERMUTATIONS, 42)
        sketch.update(sorted(trigrams))
        for other in index.query(sketch):
            # Within a large cluster, most pairs are already joined and need no comparison.
            if joined.connected(row, other):
                continue
            if len(trigrams & shingles[other]) >= threshold * len(trigrams | shingles[other]):
                joined.merge(row, other)
        index.insert(row, sketch)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(joined[row], len(numbers)) for row in range(len(texts))], dtype=np.int64)
