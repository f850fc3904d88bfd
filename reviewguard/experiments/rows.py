"""The rows of an experiment, split once so that all runs train and score on the same rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from reviewguard.config import DataConfig
from reviewguard.data.assigned import column_split
from reviewguard.data.clean import clean
from reviewguard.data.near import fold
from reviewguard.data.reviews import Reviews, concatenate
from reviewguard.data.split import divide, make_split
from reviewguard.data.tables import Data
from reviewguard.errors import DataError

#: Seed of the split, which is the same for all runs.
SPLIT_SEED: Final = 42


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of one source.

    Attributes:
        name: Name in tables.
        train: Training rows; each recipe cleans them by its own settings.
        validation: Rows that a run chooses its best epoch and sets its operating point on.
        scored: Held-out rows that results are computed on.
    """

    name: str
    train: Reviews
    validation: Reviews
    scored: Reviews


def divide_source(reviews: Reviews, config: DataConfig, name: str) -> Source:
    """Split rows deterministically.

    A split column is respected if there is one, and its test rows are scored. Without test rows, its validation rows are scored,
    and a stratified share of its training rows, near-duplicates kept together, becomes the validation rows, so that scored rows
    never choose an epoch. Without such a column, unusable and repeated rows are dropped and the rest is split at random.

    Args:
        reviews: Rows as read.
        config: Columns, shares, group, and the threshold of near-duplicates.
        name: Name of the source.

    Raises:
        DataError: If the rows cannot be used or are too few to split.
    """
    if not config.split or config.split not in reviews.columns:
        distinct = _without_repeats(reviews, config)
        parts = divide(distinct, make_split(distinct, config, SPLIT_SEED))
        if missing := {"train", "validation", "test"} - parts.keys():
            raise DataError(
                f"an experiment needs rows to train on, to validate on and to score; data.{missing.pop()} is 0, which leaves none"
            )
        return Source(name=name, train=parts["train"], validation=parts["validation"], scored=parts["test"])
    parts = divide(reviews, column_split(reviews.columns[config.split], config.split))
    if "train" not in parts or len(parts) == 1:
        raise DataError(
            f"column {config.split!r} of {name} assigns rows to {', '.join(parts)} only; an experiment needs train, and "
            "validation or test"
        )
    if "test" in parts and "validation" in parts:
        return Source(name=name, train=_usable(parts["train"]), validation=parts["validation"], scored=parts["test"])
    scored = parts.get("test") or parts["validation"]
    rest = _without_repeats(parts["train"], config)
    no_test = msgspec.structs.replace(config, validation=config.validation or DataConfig().validation, test=0.0)
    inner = divide(rest, make_split(rest, no_test, SPLIT_SEED))
    return Source(name=name, train=inner["train"], validation=inner["validation"], scored=scored)


def name_of(data: Data, usual: str = "the data") -> str:
    """The name of a source in tables: its file name without folder and suffix, or `usual` if it is not a file."""
    return Path(data).stem if isinstance(data, str | os.PathLike) else usual


def pool(sources: Iterable[Source], name: str) -> Source:
    """Combine several sources into one."""
    sources = list(sources)
    return Source(
        name=name,
        train=concatenate([source.train for source in sources], name),
        validation=concatenate([source.validation for source in sources], name),
        scored=concatenate([source.scored for source in sources], name),
    )


def unseen(scored: Reviews, trained: Reviews) -> Reviews:
    """Scored rows whose text is not among the trained rows, ignoring case, punctuation and white space."""
    known = {fold(text) for text in trained.texts if text}
    return scored.take(row for row, text in enumerate(scored.texts) if text is None or fold(text) not in known)


def digest(parts: Mapping[str, Reviews]) -> str:
    """SHA-256 over texts and labels, part by part and row by row."""
    whole = hashlib.sha256()
    for name, part in parts.items():
        for row in [(name, ""), *zip(part.texts, part.labels, strict=True)]:
            for value in row:
                content = (value or "").encode("utf-8", "surrogatepass")
                whole.update(b"%d:%b" % (len(content), content))
    return whole.hexdigest()


def _usable(reviews: Reviews) -> Reviews:
    """Rows with text and label."""
    pairs = zip(reviews.texts, reviews.labels, strict=True)
    return reviews.take(row for row, (text, label) in enumerate(pairs) if text and text.strip() and label)


def _without_repeats(reviews: Reviews, config: DataConfig) -> Reviews:
    """Usable rows without repeated texts.

    Each recipe applies its own length limits, which are in tokens of its encoder, and its own near-duplicate filter.
    """
    lenient = msgspec.structs.replace(config, min_tokens=0, near_duplicates=0.0)
    return clean(reviews, lenient, lambda texts: np.zeros(len(texts), dtype=np.int64))[0]
