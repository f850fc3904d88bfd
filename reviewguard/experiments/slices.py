"""Parts of the scored rows that a model may do better or worse on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import Reviews, is_null

_VALUES = 20  # a column of more different values names rows, not slices
_ROWS = 30  # of fewer, a share says nothing


def slices(rows: Reviews) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Masks (n,) by what they are of: quartiles of the length, and values of every column that has a few."""
    words = np.array([len((text or "").split()) for text in rows.texts])
    edges = np.unique(np.quantile(words, (0.25, 0.5, 0.75)).astype(int))
    quartile = np.searchsorted(edges, words, side="left")
    lengths = {}
    for number in np.unique(quartile):
        own = quartile == number
        lengths[f"{words[own].min()} to {words[own].max()}"] = own
    found = {"length in words": lengths}
    for name, column in rows.columns.items():
        values = np.array(["" if is_null(value) else str(value) for value in column])
        masks = {value: values == value for value in sorted(set(values)) if value}
        if 1 < len(masks) <= _VALUES:
            found[name] = masks
    large = {name: {value: mask for value, mask in masks.items() if mask.sum() >= _ROWS} for name, masks in found.items()}
    return {name: masks for name, masks in large.items() if len(masks) > 1}
