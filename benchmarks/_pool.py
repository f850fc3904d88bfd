"""The pooled reviews that the model in the box is made from and measured on: people's, and those of five generators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from _results import SHARED

from reviewguard import files
from reviewguard.data.near import fold
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.rows import iter_rows

#: Files by the generator of their fakes, with their sha256: other data would be another model.
FILES: Final = {
    "gpt2": ("reviews_gpt2.csv", "16fdf13817788ba428cb4c6455fd637ce0c9a23828ae11c8a234c02aeeda1dc2"),
    "deepseek": ("reviews_deepseek.csv", "adc7ca9f5f5250f4069d3178e968455dcba839794680cb858ce638f0100613c6"),
    "glm": ("reviews_glm.csv", "1934a0993f2fe161b3e66a2b1e84f07508f347a233cab62a6cac60431f4ea4ad"),
    "lfm": ("reviews_lfm.csv", "642019893a6456de9620b57fd2eb33c4500d19d64df8d0ec89ec4dda3da0ec75"),
    "gpt4": ("reviews_multilingual.csv", "9c1bc5ec0bfad061b7a1a3c0ac5d23f9b273a9c0cdd2b6aa75b277a201fcd492"),
}
#: Sources whose people write about products; the others' write about hotels.
PRODUCTS: Final = ("gpt2", "deepseek", "glm", "lfm")
MODERN: Final = ("deepseek", "glm", "lfm", "gpt4")
NORMALIZATION: Final = "typography"


class Row(NamedTuple):
    """A review, normalised; `source` is the generator that its file is about, of people's reviews too."""

    source: str
    split: str
    label: str
    text: str


def load() -> list[Row]:
    """Every row of the files that is in English. The hotel reviews, which bring no split, are divided by their texts.

    Raises:
        SystemExit: If a file is not the pinned one.
    """
    normalize, rows = NORMALIZERS[NORMALIZATION], []
    for source, (name, sha256) in FILES.items():
        path = SHARED / name
        if (found := files.sha256(path)) != sha256:
            raise SystemExit(f"{path} has sha256 {found}, and {sha256} is pinned")
        english = [row for row in iter_rows(path) if row.get("language", "English") == "English"]
        texts = [normalize(row["text"]) for row in english]
        sides = [
            row.get("split") or ("train", "validation")[_digest(text)[1] % 2] for row, text in zip(english, texts, strict=True)
        ]
        rows += [Row(source, side, row["label"], text) for row, side, text in zip(english, sides, texts, strict=True)]
    return rows


def for_training(rows: Sequence[Row], without: str = "") -> list[Row]:
    """Training rows, each text once: people's recur in the files.

    Args:
        rows: What `load` gave.
        without: A generator to leave out.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row.split == "train" and not is_left_out(row, without):
            found.setdefault(fold(row.text), row)
    return list(found.values())


def for_validation(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Validation rows in two halves, by text: one to set decisions on, and one to score."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        if row.split == "validation":
            halves[_digest(row.text)[0] % 2].append(row)
    return halves


def is_left_out(row: Row, generator: str) -> bool:
    """Whether it is a fake of the generator that a trial leaves out: neither its training nor its choices may see one."""
    return row.source == generator and row.label == "fake"


def _digest(text: str) -> bytes:
    return hashlib.sha256(fold(text).encode()).digest()
