"""Reviews for training and selecting the built-in model, human and by nine generators, in one schema."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, Literal, NamedTuple

from _results import SHARED

from reviewguard import files
from reviewguard.data.near import fold
from reviewguard.data.rows import iter_rows

Part = Literal["setting", "selection", "published"]
#: Files with their SHA-256; other data gives another model.
FILES: Final = {
    "reviews_gpt2.csv": "16fdf13817788ba428cb4c6455fd637ce0c9a23828ae11c8a234c02aeeda1dc2",
    "reviews_deepseek.csv": "adc7ca9f5f5250f4069d3178e968455dcba839794680cb858ce638f0100613c6",
    "reviews_glm.csv": "1934a0993f2fe161b3e66a2b1e84f07508f347a233cab62a6cac60431f4ea4ad",
    "reviews_lfm.csv": "642019893a6456de9620b57fd2eb33c4500d19d64df8d0ec89ec4dda3da0ec75",
    "reviews_claude.csv": "fc35e2991505bc363026e79bc581b422d9d8a1b00ccd683dd26da6a8818c89b2",
    "reviews_multilingual.csv": "9c1bc5ec0bfad061b7a1a3c0ac5d23f9b273a9c0cdd2b6aa75b277a201fcd492",
    "rewrites.csv": "ee186f3bdb96c155c6d216bc7f9834e89c57b84044c0e5b14de6fef40049e6f6",
    "human_sentences.csv": "38e69ff6231009461a3d33d0a2e3dcbc27d28b6f38bfb5baaad0f2f2546f2726",
    "human_clothing.csv": "192127edc84e10fc8db0108017e1a86a026b5c9f383e413cbd1b749ce388b0ae",
    "human_other.csv": "ad144c5e48844467f4e54fc2e9b5cc4bb13b80937570e4943c325495e724753c",
}
#: Generator of human reviews.
HUMAN: Final = "human"
#: Lower bounds of the length bands, in words.
BANDS: Final = (8, 20, 40, 80)
#: Domains of reviews and similar texts; the others are news, law, religion and so on.
REVIEWS: Final = ("products", "hotels", "ProductReview", "sentences", "clothing", "medicine", "cars")


class Row(NamedTuple):
    """A text with its attributes.

    Attributes:
        text: Text as published.
        label: "fake" or "real".
        generator: Generator of a fake; "human" otherwise.
        domain: Subject of the text.
        split: "train" or "validation".
    """

    text: str
    label: str
    generator: str
    domain: str
    split: str


def load() -> list[Row]:
    """Read all English rows of the files, each text once.

    The hotel reviews have no split and are split by a hash of the text.

    Raises:
        SystemExit: If a file is not the pinned one.
    """
    rows: dict[str, Row] = {}
    for name, pinned in FILES.items():
        path = SHARED / name
        if (actual := files.sha256(path)) != pinned:
            raise SystemExit(f"{path} has sha256 {actual}, but {pinned} is pinned")
        for raw in iter_rows(path):
            if raw.get("language", "English") == "English" and raw["text"].strip():
                row = _row(name, raw)
                rows.setdefault(fold(row.text), row)
    return list(rows.values())


def _row(name: str, raw: dict[str, Any]) -> Row:
    text, label = raw["text"], raw["label"]
    domain, generator = {
        "reviews_multilingual.csv": ("hotels", "gpt-4"),
        "rewrites.csv": (raw.get("domain"), raw.get("generator")),
        "human_sentences.csv": ("sentences", HUMAN),
        "human_clothing.csv": ("clothing", HUMAN),
        "human_other.csv": (raw.get("domain"), HUMAN),
    }.get(name, ("products", raw.get("generator")))
    split = raw.get("split") or ("train", "validation")[digest(text)[1] % 2]
    return Row(text, label, str(generator) if label == "fake" else HUMAN, str(domain), split)


def digest(text: str) -> bytes:
    """A hash of a text that ignores case, punctuation and white space; it determines the split and part."""
    return hashlib.sha256(fold(text).encode()).digest()


def part(row: Row) -> Part:
    """The purpose of a held-out row: setting thresholds, selecting a recipe, or published results.

    It depends only on the text, so no text serves two purposes.
    """
    code = digest(row.text)
    if code[2] % 3 == 0:
        return "published"
    return "setting" if code[0] % 2 else "selection"


def validation(rows: Iterable[Row], of: Part) -> list[Row]:
    """Validation rows of one part."""
    return [row for row in rows if row.split == "validation" and part(row) == of]


def group(domain: str) -> str:
    """The group that a domain is balanced as; domains that are not reviews form one group."""
    return domain if domain in REVIEWS else "other"


def band(text: str) -> int:
    """Lower bound of the length band of a text, in words; 0 below the first band."""
    return max((bound for bound in BANDS if len(text.split()) >= bound), default=0)


def draw(rows: Iterable[Row], size: int, stratum: Callable[[Row], object]) -> list[Row]:
    """Draw at most `size` rows, in turn from each stratum; within a stratum, in the order of their hashes.

    Args:
        rows: Rows to draw from.
        size: Size of the sample.
        stratum: Function from a row to its stratum.
    """
    strata: dict[object, list[Row]] = {}
    for row in sorted(rows, key=lambda row: digest(row.text)):
        strata.setdefault(stratum(row), []).append(row)
    turns = zip_longest(*(strata[name] for name in sorted(strata, key=str)))
    return [row for row in chain.from_iterable(turns) if row is not None][:size]


def balanced(rows: Sequence[Row], size: int) -> list[Row]:
    """Draw as many fakes as human texts, stratified by generator, domain and length.

    Args:
        rows: Rows to draw from.
        size: Size of the sample, both classes together.
    """
    of_class: Iterator[list[Row]] = ([row for row in rows if row.label == label] for label in ("fake", "real"))
    return [
        row
        for members in of_class
        for row in draw(members, size // 2, lambda row: (row.generator, group(row.domain), band(row.text)))
    ]
