"""Seeded, stratified splits that keep near-duplicates and groups together, and the split file format."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from reviewguard.config import DataConfig
from reviewguard.data.assigned import SplitName, column_split
from reviewguard.data.near import clusters, fold
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import Reviews
from reviewguard.data.tables import is_null
from reviewguard.errors import ConfigError, DataError, requires

with requires("train"):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.model_selection import train_test_split


def row_hash(text: str) -> str:
    """SHA-256 of the UTF-8 bytes of a text before normalisation, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def divide(reviews: Reviews, sides: Sequence[SplitName | None]) -> dict[str, Reviews]:
    """Divide rows by split; rows without a split and splits without rows are omitted."""
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, side in enumerate(sides):
        if side is not None:
            rows[side].append(row)
    return {name: reviews.take(index) for name, index in rows.items() if index}


def make_split(reviews: Reviews, config: DataConfig, seed: int) -> list[SplitName]:
    """Split rows into train, validation and test, stratified by label.

    Near-duplicates and rows that share a value of `config.group` stay in the same split.

    Args:
        reviews: Complete rows (see `clean`).
        config: Shares, group column and similarity threshold.
        seed: Random seed; equal input and seed give an equal split.

    Raises:
        ConfigError: If the shares leave no training rows.
        DataError: If a class or the number of groups is too small to split.
    """
    if config.test + config.validation >= 1:
        raise ConfigError(
            f"data.test={config.test:g} and data.validation={config.validation:g} leave no training rows; "
            "their sum must be below 1"
        )
    texts, labels = reviews.require_complete()
    normalize = NORMALIZERS[config.normalization]  # the splits must not share the normalised texts that the model sees
    groups = _groups([normalize(text) for text in texts], reviews, config)
    sides: list[SplitName] = ["train"] * len(texts)
    rest = np.arange(len(texts))
    for side, share in (("test", config.test), ("validation", config.validation)):
        if not share:
            continue
        share_of_rest = share * len(texts) / len(rest)
        selected = _hold_out(np.array(labels)[rest], groups[rest], share_of_rest, seed, reviews.source)
        for row in rest[selected]:
            sides[row] = cast(SplitName, side)
        rest = np.delete(rest, selected)
    return sides


def _hold_out(labels: NDArray[np.str_], groups: NDArray[np.int64], share: float, seed: int, source: str) -> NDArray[np.int64]:
    """Select a share of the groups, stratified by their most frequent label, and return their rows."""
    names, rows = np.unique(groups, return_inverse=True)
    label_names, label_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(label_names)), dtype=np.int64)
    np.add.at(counts, (rows, label_of), 1)
    class_counts = counts.sum(axis=0)
    smallest, rarest = int(class_counts.min()), label_names[class_counts.argmin()]
    majority = counts.argmax(axis=1)
    # Stratification needs at least two groups per majority label, which a few large groups may not provide.
    stratify = majority if min(Counter(majority.tolist()).values()) > 1 else None
    try:
        if smallest * share < 0.5 or len(names) < 2:
            raise ValueError("too few")
        selected = train_test_split(np.arange(len(names)), test_size=share, stratify=stratify, random_state=seed)[1]
    except ValueError as error:
        raise DataError(
            f"{source} is too small to hold out {share:.3g} of its rows: the rarest class, {str(rarest)!r}, has {smallest} "
            f"row(s), and there are {len(names)} independent groups. Add rows, pass validation data, or set data.validation=0 "
            "and data.test=0"
        ) from error
    return np.flatnonzero(np.isin(rows, selected))


def _groups(texts: Sequence[str], reviews: Reviews, config: DataConfig) -> NDArray[np.int64]:
    # Texts that differ only in case or punctuation form one group even if near-duplicates are not searched for.
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
    # Each key is a node that connects the rows that share it.
    n = len(texts)
    left = np.tile(np.arange(n), len(keys))
    offsets = np.cumsum([n, *(key.max() + 1 for key in keys)])
    right = np.concatenate([key + offset for key, offset in zip(keys, offsets, strict=False)])
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(offsets[-1], offsets[-1]))
    return np.asarray(connected_components(edges, directed=False)[1][:n], dtype=np.int64)


def to_csv(sides: Sequence[tuple[str, str]]) -> str:
    """Format pairs (text, split) as CSV with the columns `sha256` (see `row_hash`) and `split`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("sha256", "split"))
    writer.writerows((row_hash(text), side) for text, side in sides)
    return out.getvalue()


def from_csv(path: str | Path, texts: Sequence[str]) -> list[SplitName | None]:
    """Reproduce a saved split; rows that the file does not list get None.

    Raises:
        DataError: If the file cannot be read, contradicts itself, or lists none of the texts.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [(row["sha256"], row["split"]) for row in csv.DictReader(file) if row["split"]]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the split file {path}: {error!r}; it must have the columns sha256 and split") from error
    known = list(zip((hash_ for hash_, _ in rows), column_split([side for _, side in rows], "split"), strict=True))
    sides = dict(known)
    if contradicted := [hash_ for hash_, side in known if sides[hash_] != side]:
        raise DataError(f"the split file {path} assigns one text to two splits: {contradicted[0]}")
    # Repeats beyond the number of lines for a text were dropped by cleaning, and are dropped again.
    listed = Counter(hash_ for hash_, _ in known)
    assigned: list[SplitName | None] = []
    for hash_ in map(row_hash, texts):
        assigned.append(sides[hash_] if listed[hash_] else None)
        listed[hash_] -= 1 if listed[hash_] else 0
    if not any(assigned):
        raise DataError(f"the split file {path} lists none of the {len(texts)} texts; check that it belongs to this data")
    return assigned
