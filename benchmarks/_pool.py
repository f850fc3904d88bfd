"""The pooled reviews that the model in the box is made from and measured on: people's, and those of four generators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from _results import SHARED

from reviewguard import files
from reviewguard.data.near import fold
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import iter_rows

#: Files by the generator of their fakes, with their sha256: other data would be another model.
FILES: Final = {
    "gpt2": ("reviews_gpt2.csv", "16fdf13817788ba428cb4c6455fd637ce0c9a23828ae11c8a234c02aeeda1dc2"),
    "deepseek": ("reviews_deepseek.csv", "adc7ca9f5f5250f4069d3178e968455dcba839794680cb858ce638f0100613c6"),
    "glm": ("reviews_glm.csv", "1934a0993f2fe161b3e66a2b1e84f07508f347a233cab62a6cac60431f4ea4ad"),
    "lfm": ("reviews_lfm.csv", "642019893a6456de9620b57fd2eb33c4500d19d64df8d0ec89ec4dda3da0ec75"),
}
MODERN: Final = ("deepseek", "glm", "lfm")
NORMALIZATION: Final = "typography"


class Row(NamedTuple):
    """A review, normalised; `source` is the generator that its file is about, of people's reviews too."""

    source: str
    split: str
    label: str
    text: str


def load() -> list[Row]:
    """Every row of the four files.

    Raises:
        SystemExit: If a file is not the pinned one.
    """
    normalize, rows = NORMALIZERS[NORMALIZATION], []
    for source, (name, sha256) in FILES.items():
        path = SHARED / name
        if (found := files.sha256(path)) != sha256:
            raise SystemExit(f"{path} has sha256 {found}, and {sha256} is pinned")
        rows += [Row(source, row["split"], row["label"], normalize(row["text"])) for row in iter_rows(path)]
    return rows


def for_training(rows: Sequence[Row], without: str = "") -> list[Row]:
    """Training rows, each text once: people's recur in the files.

    Args:
        rows: What `load` gave.
        without: A generator to leave out.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row.split == "train" and not (row.source == without and row.label == "fake"):
            found.setdefault(fold(row.text), row)
    return list(found.values())


def for_validation(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Validation rows in two halves, by text: one to set decisions on, and one to score."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        if row.split == "validation":
            halves[hashlib.sha256(fold(row.text).encode()).digest()[0] % 2].append(row)
    return halves
