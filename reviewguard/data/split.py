"""Seeded, stratified splits that keep near-duplicates and groups on one side, and their file format."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import DataConfig
from reviewguard.data.near import clusters, fold
from reviewguard.data.reviews import Reviews, is_null
from reviewguard.errors import DataError, requires

with requires("train"):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.model_selection import StratifiedGroupKFold

SplitName = Literal["train", "validation", "test"]
_NAMES: Final[dict[SplitName, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_ALIASES: Final = {alias: name for name, aliases in _NAMES.items() for alias in aliases}


def row_hash(text: str) -> str:
    """The sha256 of a text's UTF-8 bytes, as read and before any normalisation, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def column_split(values: Sequence[Any], column: str) -> list[SplitName]:
    """Read a column that assigns rows to train, validation and test.

    Raises:
        DataError: If a value is none of the known names.
    """
    unknown = sorted({str(value) for value in values if str(value).casefold() not in _ALIASES})
    if unknown:
        raise DataError(
            f"column {column!r} should assign rows to a split, with values of {', '.join(_ALIASES)}; it also holds "
            f"{', '.join(map(repr, unknown[:5]))}. If it means something else, pass data.split= (empty)"
        )
    return [_ALIASES[str(value).casefold()] for value in values]


def make_split(reviews: Reviews, config: DataConfig, seed: int) -> list[SplitName]:
    """Split rows into train, validation and test, stratified by label.

    Rows that are near-duplicates of each other, or share a value of `config.group`, land on the same side.

    Args:
        reviews: Complete rows (see `clean`).
        config: Shares, group column and similarity threshold.
        seed: Of the shuffle; equal input and seed give an equal split.

    Raises:
        DataError: If a class or the number of groups is too small to be split.
    """
    texts, labels = reviews.require_complete()
    groups = _groups(texts, reviews, config)
    sides: list[SplitName] = ["train"] * len(texts)
    rest = np.arange(len(texts))
    for side, share in (("test", config.test), ("validation", config.validation)):
        if not share:
            continue
        of_rest = share * len(texts) / len(rest)
        held = _hold_out(np.array(labels)[rest], groups[rest], of_rest, seed, reviews.source)
        for row in rest[held]:
            sides[row] = cast(SplitName, side)
        rest = np.delete(rest, held)
    return sides


def _hold_out(labels: NDArray[np.str_], groups: NDArray[np.int64], share: float, seed: int, source: str) -> NDArray[np.int64]:
    smallest = min(Counter(labels.tolist()).values())
    available = len(set(groups.tolist()))
    kept, folds = _as_folds(share, min(smallest, available))
    if not 0 < kept < folds:
        raise DataError(
            f"{source} is too small to hold out {share:.0%} of its rows: the rarest class has {smallest} row(s), and there are "
            f"{available} independent groups. Pass validation data, or add rows"
        )
    folded = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    parts = [held for _, held in islice(folded.split(labels, labels, groups), kept)]
    return np.sort(np.concatenate(parts))


def _as_folds(share: float, most: int) -> tuple[int, int]:
    """The share as folds to hold out of folds in all: as few as come within a twentieth of it, and at most `most`."""
    for limit in (20, 100, 1000):
        fraction = Fraction(share).limit_denominator(min(limit, most))
        if abs(fraction - Fraction(share)) <= share / 20:
            break
    return fraction.as_integer_ratio()


def _groups(texts: Sequence[str], reviews: Reviews, config: DataConfig) -> NDArray[np.int64]:
    # Texts that differ in case or punctuation only are one group even where near-duplicates are not looked for.
    keys = [clusters(texts, config.near_duplicates)] if config.near_duplicates else []
    keys.append(np.unique([fold(text) for text in texts], return_inverse=True)[1])
    if config.group:
        if config.group not in reviews.columns:
            raise DataError(f"{reviews.source} has no column {config.group!r} to group by; it has {', '.join(reviews.columns)}")
        named = [
            f"row {row}" if is_null(value) or value == "" else f"group {value}"
            for row, value in enumerate(reviews.columns[config.group])
        ]
        keys.append(np.unique(named, return_inverse=True)[1])
    # Rows that share any key are connected through a node for that key.
    n = len(texts)
    left = np.tile(np.arange(n), len(keys))
    offsets = np.cumsum([n, *(key.max() + 1 for key in keys)])
    right = np.concatenate([key + offset for key, offset in zip(keys, offsets, strict=False)])
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(offsets[-1], offsets[-1]))
    return np.asarray(connected_components(edges, directed=False)[1][:n], dtype=np.int64)


def to_csv(sides: Sequence[tuple[str, str]]) -> str:
    """Pairs (text, side) as CSV with the columns `sha256` (see `row_hash`) and `split`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("sha256", "split"))
    writer.writerows((row_hash(text), side) for text, side in sides)
    return out.getvalue()


def from_csv(path: str | Path, texts: Sequence[str]) -> list[SplitName | None]:
    """Reproduce a saved split; rows that it does not know get None.

    Raises:
        DataError: If the file cannot be read or knows none of the texts.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            known = {row["sha256"]: row["split"] for row in csv.DictReader(file) if row["split"]}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the split file {path}: {error!r}; it has the columns sha256 and split") from error
    sides = dict(zip(known, column_split(list(known.values()), "split"), strict=True))
    found = [sides.get(row_hash(text)) for text in texts]
    if not any(found):
        raise DataError(f"the split file {path} knows none of the {len(texts)} texts: is it for other data?")
    return found
