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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

_WORDS: Final = re.compile(r"\w+")
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
    left: list[int] = []
    right: list[int] = []
    for row, own in enumerate(shingles):
        sketch = RMinHash(_PERMUTATIONS, 42)
        sketch.update(sorted(own))
        for other in index.query(sketch):
            theirs = shingles[other]
            if len(own & theirs) >= threshold * len(own | theirs):
                left.append(row)
                right.append(other)
        index.insert(row, sketch)
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(texts), len(texts)))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)
