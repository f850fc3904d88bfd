"""Cleaning of training rows, with a report of every dropped row."""

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
    """A text that occurs with different labels."""

    text: str
    labels: list[str]


class CleaningReport(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of a cleaning run.

    Attributes:
        rows_in: Number of rows read.
        rows_out: Number of rows kept.
        stripped_labels: Number of labels that had leading or trailing white space; labels that differ only in it are one class.
        steps: The cleaning steps in order, each with the number of rows it dropped.
        conflicts: Up to ten texts that occur with different labels; all rows of such texts are dropped, since none of their
            labels can be trusted.
    """

    rows_in: int
    rows_out: int
    steps: list[Step]
    conflicts: list[Conflict]
    stripped_labels: int = 0

    def to_text(self) -> str:
        """The report as text, one line per step."""
        lines = [f"cleaning: {self.rows_in} rows read, {self.rows_out} kept"]
        lines += [f"  {step.name}: {step.dropped} dropped" for step in self.steps]
        lines += [f"  {self.stripped_labels} labels had leading or trailing white space"] if self.stripped_labels else []
        lines += [f"  labelled {' and '.join(c.labels)}: {c.text[:80]!r}" for c in self.conflicts]
        return "\n".join(lines)


def clean(
    reviews: Reviews, config: DataConfig, count_tokens: Callable[[Sequence[str]], NDArray[np.int64]]
) -> tuple[Reviews, CleaningReport]:
    """Drop rows that should not be trained on. Rows to predict or score are never cleaned.

    The steps drop, in this order: rows without text or label, equal texts with different labels, repeated texts, texts outside
    the length limits, and near-duplicates with the same label.

    Args:
        reviews: Rows as read. The returned texts are not normalised either.
        config: Length limits, and the normalisation that is applied before texts are compared.
        count_tokens: Function that returns the number of tokens of each normalised text, without special tokens.

    Returns:
        The remaining rows and the report.

    Raises:
        DataError: If no row remains.
    """
    normalize = NORMALIZERS[config.normalization]
    texts = [normalize(text or "") for text in reviews.texts]
    labels = [label or "" for label in reviews.labels]
    remaining = [i for i in range(len(reviews)) if texts[i].strip() and labels[i]]
    steps = [Step("without text or label", len(reviews) - len(remaining))]

    seen: dict[str, set[str]] = defaultdict(set)
    for i in remaining:
        seen[texts[i]].add(labels[i])
    contradicted = {text for text, text_labels in seen.items() if len(text_labels) > 1}

    def keep(name: str, rows: list[int]) -> None:
        nonlocal remaining
        steps.append(Step(name, len(remaining) - len(rows)))
        remaining = rows

    keep("equal texts with different labels", [i for i in remaining if texts[i] not in contradicted])
    keep("repeated texts", _first_of_each(remaining, [texts[i] for i in remaining]))
    lengths = dict(zip(remaining, count_tokens([texts[i] for i in remaining]).tolist(), strict=True))
    keep(f"shorter than {config.min_tokens} tokens", [i for i in remaining if lengths[i] >= config.min_tokens])
    keep(f"longer than {config.max_tokens} tokens", [i for i in remaining if lengths[i] <= config.max_tokens])

    # Near-duplicates come last, so that the length limits do not drop the text kept for a group of near-duplicates.
    if config.near_duplicates and remaining:
        groups = clusters([texts[i] for i in remaining], config.near_duplicates).tolist()
        keys = [(group, labels[i]) for i, group in zip(remaining, groups, strict=True)]
        keep("near-duplicate texts", _first_of_each(remaining, keys))

    report = CleaningReport(
        rows_in=len(reviews),
        rows_out=len(remaining),
        steps=steps,
        conflicts=[Conflict(text, sorted(seen[text])) for text in sorted(contradicted)[:10]],
        stripped_labels=reviews.stripped_labels,
    )
    if not remaining:
        raise DataError(
            f"no training row of {reviews.source} is left after cleaning; {report.to_text()}\n"
            "relax data.min_tokens, data.max_tokens or data.near_duplicates"
        )
    return reviews.take(remaining), report


def _first_of_each(rows: list[int], keys: Sequence[object]) -> list[int]:
    first: dict[object, int] = {}
    for row, key in zip(rows, keys, strict=True):
        first.setdefault(key, row)
    return list(first.values())
