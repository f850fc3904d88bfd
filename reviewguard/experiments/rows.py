"""The rows of an experiment, divided once, so that every run trains and is scored on the same ones."""

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
from reviewguard.data.reviews import Data, Reviews, concatenate
from reviewguard.data.split import divide, make_split
from reviewguard.errors import DataError

#: Of the division, which is the same for all runs, whatever their seeds.
SPLIT_SEED: Final = 42


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of one source.

    Attributes:
        name: For tables.
        train: Trained on; each recipe still cleans them in its own way.
        validation: What a run may choose its best epoch by, and sets its operating point on.
        scored: What results are of; nothing was chosen by them.
    """

    name: str
    train: Reviews
    validation: Reviews
    scored: Reviews


def divide_source(reviews: Reviews, config: DataConfig, name: str) -> Source:
    """Divide rows, always in the same way.

    A column of splits is respected if there is one. Its test rows are scored. Where it has none its validation rows are, and rows
    of its training part, stratified and without near-duplicates across, take their place, so that what is scored never chose an
    epoch. Without such a column, unusable and repeated rows are dropped, and the rest is divided at random.

    Args:
        reviews: As read.
        config: Columns, shares, group, and what counts as a near-duplicate.
        name: Of the source.

    Raises:
        DataError: If the rows cannot be used or are too few to be divided.
    """
    if not config.split or config.split not in reviews.columns:
        kept = _without_repeats(reviews, config)
        parts = divide(kept, make_split(kept, config, SPLIT_SEED))
        if missing := {"train", "validation", "test"} - parts.keys():
            raise DataError(
                f"an experiment needs rows to train on, to choose by and to score; data.{missing.pop()} is 0, which leaves none"
            )
        return Source(name=name, train=parts["train"], validation=parts["validation"], scored=parts["test"])
    parts = divide(reviews, column_split(reviews.columns[config.split], config.split))
    if "train" not in parts or len(parts) == 1:
        raise DataError(
            f"column {config.split!r} of {name} assigns rows to {', '.join(parts)} only; an experiment needs train, and "
            "validation or test"
        )
    if "test" in parts and "validation" in parts:
        return Source(name=name, train=_complete(parts["train"]), validation=parts["validation"], scored=parts["test"])
    scored = parts.get("test") or parts["validation"]
    rest = _without_repeats(parts["train"], config)
    no_test = msgspec.structs.replace(config, validation=config.validation or DataConfig().validation, test=0.0)
    inner = divide(rest, make_split(rest, no_test, SPLIT_SEED))
    return Source(name=name, train=inner["train"], validation=inner["validation"], scored=scored)


def name_of(data: Data, usual: str = "the data") -> str:
    """What to call a source in tables: its file, without folder and ending; the usual name where it is no file."""
    return Path(data).stem if isinstance(data, str | os.PathLike) else usual


def pool(sources: Iterable[Source], name: str) -> Source:
    """Several sources as one."""
    sources = list(sources)
    return Source(
        name=name,
        train=concatenate([one.train for one in sources], name),
        validation=concatenate([one.validation for one in sources], name),
        scored=concatenate([one.scored for one in sources], name),
    )


def unseen(scored: Reviews, trained: Reviews) -> Reviews:
    """The rows whose text no row of the others repeats, but for case, punctuation and white space."""
    known = {fold(text) for text in trained.texts if text}
    return scored.take(row for row, text in enumerate(scored.texts) if text is None or fold(text) not in known)


def digest(parts: Mapping[str, Reviews]) -> str:
    """A sha256 over texts and labels, part by part and row by row."""
    whole = hashlib.sha256()
    for name, part in parts.items():
        for row in [(name, ""), *zip(part.texts, part.labels, strict=True)]:
            for value in row:
                content = (value or "").encode("utf-8", "surrogatepass")
                whole.update(b"%d:%b" % (len(content), content))
    return whole.hexdigest()


def _complete(reviews: Reviews) -> Reviews:
    """Rows with text and label. Every recipe would clean the others away, but not every candidate has a recipe."""
    pairs = zip(reviews.texts, reviews.labels, strict=True)
    return reviews.take(row for row, (text, label) in enumerate(pairs) if text and text.strip() and label)


def _without_repeats(reviews: Reviews, config: DataConfig) -> Reviews:
    """Rows that can be divided.

    Limits of length are in tokens of an encoder, and a split keeps near-duplicates together: both are left to each recipe.
    """
    lenient = msgspec.structs.replace(config, min_tokens=0, near_duplicates=0.0)
    return clean(reviews, lenient, lambda texts: np.zeros(len(texts), dtype=np.int64))[0]
