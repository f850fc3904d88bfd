"""Near-duplicate texts, by MinHash and verified Jaccard similarity of word trigrams."""

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

# Chinese and Japanese write no spaces, so there each character counts as a word.
_WORDS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_PERMUTATIONS: Final = 128


def fold(text: str) -> str:
    """The text without case, punctuation and white space differences; a text without any word stays as it is."""
    return " ".join(_WORDS.findall(text.casefold())) or text


def _shingles(text: str) -> frozenset[str]:
    words = fold(text).split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def clusters(texts: Sequence[str], threshold: float) -> NDArray[np.int64]:
    """Number the groups of near-duplicate texts.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997; rensa's implementation) and are verified
    by their true Jaccard similarity, so no pair is joined by a hash collision. A pair just above the threshold may be
    missed with a small probability, as with every such index; below a threshold of 0.2 many are.

    Args:
        texts: The texts, n of them.
        threshold: Jaccard similarity in (0, 1] of their word trigrams, case and punctuation ignored.

    Returns:
        int64 (n,): equal numbers for texts joined by a chain of near-duplicate pairs.
    """
    shingles = [_shingles(text) for text in texts]
    # Bands are cut for a threshold below the one asked for: candidates are cheap, misses are not.
    bands = next(b for b in (8, 16, 32, 64) if (1 / b) ** (b / _PERMUTATIONS) <= max(0.8 * threshold, 0.15))
    index = RMinHashLSH(threshold, _PERMUTATIONS, bands)
    joined = DisjointSet(range(len(texts)))
    first: dict[frozenset[str], int] = {}
    for row, own in enumerate(shingles):
        if first.setdefault(own, row) != row:
            joined.merge(row, first[own])
            continue  # its twin stands in the index for both
        sketch = RMinHash(_PERMUTATIONS, 42)
        sketch.update(sorted(own))
        for other in index.query(sketch):
            # Within a large cluster most pairs are joined already, and need no comparing.
            if not joined.connected(row, other) and len(own & shingles[other]) >= threshold * len(own | shingles[other]):
                joined.merge(row, other)
        index.insert(row, sketch)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(joined[row], len(numbers)) for row in range(len(texts))], dtype=np.int64)
