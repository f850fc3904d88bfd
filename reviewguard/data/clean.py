"""Cleaning of training rows, with an account of every row that goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.config import DataConfig
from reviewguard.data.near import clusters
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import Reviews
from reviewguard.errors import DataError


class Step(msgspec.Struct, frozen=True):
    """One cleaning step and the rows that it dropped."""

    name: str
    dropped: int


class Conflict(msgspec.Struct, frozen=True):
    """Equal texts that carry different labels."""

    text: str
    labels: list[str]


class CleaningReport(msgspec.Struct, frozen=True, kw_only=True):
    """What cleaning did.

    Attributes:
        rows_in: Rows read.
        rows_out: Rows kept.
        stripped_labels: Rows whose label lost white space at its ends: what differs in it only is one class.
        steps: Each step with the rows it dropped, in order.
        conflicts: Up to ten equal texts with different labels; all rows of such texts are dropped, since no label of
            theirs can be trusted.
    """

    rows_in: int
    rows_out: int
    steps: list[Step]
    conflicts: list[Conflict]
    stripped_labels: int = 0

    def to_text(self) -> str:
        """A line for each step."""
        lines = [f"cleaning: {self.rows_in} rows read, {self.rows_out} kept"]
        lines += [f"  {step.name}: {step.dropped} dropped" for step in self.steps]
        lines += [f"  {self.stripped_labels} labels lost white space at their ends"] if self.stripped_labels else []
        lines += [f"  labelled {' and '.join(c.labels)}: {c.text[:80]!r}" for c in self.conflicts]
        return "\n".join(lines)


def clean(
    reviews: Reviews, config: DataConfig, count_tokens: Callable[[Sequence[str]], NDArray[np.int64]]
) -> tuple[Reviews, CleaningReport]:
    """Drop rows that should not be trained on. Never applied to rows to be predicted or scored.

    In order: rows without text or label, equal texts with different labels, repeated texts, texts outside the length limits,
    and near-duplicates of the same label.

    Args:
        reviews: Rows as read; the texts that come back are still as read.
        config: Limits and the normalisation under which texts are compared.
        count_tokens: Tokens of each normalised text, special tokens not counted.

    Returns:
        The rows kept, and the report.

    Raises:
        DataError: If nothing is left.
    """
    normalize = NORMALIZERS[config.normalization]
    texts = [normalize(text or "") for text in reviews.texts]
    labels = [label or "" for label in reviews.labels]
    kept = [i for i in range(len(reviews)) if texts[i].strip() and labels[i]]
    steps = [Step("without text or label", len(reviews) - len(kept))]

    seen: dict[str, set[str]] = defaultdict(set)
    for i in kept:
        seen[texts[i]].add(labels[i])
    contradicted = {text for text, own in seen.items() if len(own) > 1}

    def keep(name: str, rows: list[int]) -> None:
        nonlocal kept
        steps.append(Step(name, len(kept) - len(rows)))
        kept = rows

    keep("equal texts with different labels", [i for i in kept if texts[i] not in contradicted])
    keep("repeated texts", _first_of_each(kept, [texts[i] for i in kept]))
    lengths = dict(zip(kept, count_tokens([texts[i] for i in kept]).tolist(), strict=True))
    keep(f"shorter than {config.min_tokens} tokens", [i for i in kept if lengths[i] >= config.min_tokens])
    keep(f"longer than {config.max_tokens} tokens", [i for i in kept if lengths[i] <= config.max_tokens])

    # After the limits, so that a text which stands for its near-duplicates is not itself dropped.
    if config.near_duplicates and kept:
        groups = clusters([texts[i] for i in kept], config.near_duplicates).tolist()
        keys = [(group, labels[i]) for i, group in zip(kept, groups, strict=True)]
        keep("near-duplicate texts", _first_of_each(kept, keys))

    report = CleaningReport(
        rows_in=len(reviews),
        rows_out=len(kept),
        steps=steps,
        conflicts=[Conflict(text, sorted(seen[text])) for text in sorted(contradicted)[:10]],
        stripped_labels=reviews.stripped_labels,
    )
    if not kept:
        raise DataError(
            f"no training row of {reviews.source} is left after cleaning; {report.to_text()}\n"
            "loosen data.min_tokens, data.max_tokens or data.near_duplicates"
        )
    return reviews.take(kept), report


def _first_of_each(rows: list[int], keys: Sequence[object]) -> list[int]:
    first: dict[object, int] = {}
    for row, key in zip(rows, keys, strict=True):
        first.setdefault(key, row)
    return list(first.values())
