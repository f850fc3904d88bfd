"""Slices of the scored rows, on which accuracy may differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import Reviews
from reviewguard.data.tables import is_null

_VALUES = 20  # a column with more distinct values identifies rows, not slices
_ROWS = 30  # fewer rows are too few for a share


def slices(rows: Reviews) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Masks, bool (n,), of length quartiles and of the values of each column with few distinct values."""
    words = np.array([len((text or "").split()) for text in rows.texts])
    edges = np.unique(np.quantile(words, (0.25, 0.5, 0.75)).astype(int))
    quartile = np.searchsorted(edges, words, side="left")
    lengths = {}
    for number in np.unique(quartile):
        mask = quartile == number
        lengths[f"{words[mask].min()} to {words[mask].max()}"] = mask
    candidates = {"length in words": lengths}
    for name, column in rows.columns.items():
        values = np.array(["" if is_null(value) else str(value) for value in column])
        masks = {value: values == value for value in sorted(set(values)) if value}
        if 1 < len(masks) <= _VALUES:
            candidates[name] = masks
    large = {name: {value: mask for value, mask in masks.items() if mask.sum() >= _ROWS} for name, masks in candidates.items()}
    return {name: masks for name, masks in large.items() if len(masks) > 1}
