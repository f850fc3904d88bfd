"""Leakage audit: scored rows that resemble training rows, and a negative control with random labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from reviewguard.config import DataConfig
from reviewguard.data.near import clusters, fold
from reviewguard.data.reviews import Reviews
from reviewguard.experiments.candidates import BASELINE, recipe_of
from reviewguard.experiments.jobs import Job, Task
from reviewguard.experiments.rows import Source
from reviewguard.training.plan import classes_of

#: Name of the control's scored rows in its result.
CONTROL: Final = "negative control"
#: Share of the plain class's texts that count as siblings by definition of the threshold.
_STRANGERS: Final = 0.01
_BLOCK: Final = 500
#: Most training rows that similarity is computed against.
_LOOKED_AT: Final = 50_000


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Scored rows that may have leaked.

    Attributes:
        near: Whether a training row is a near-duplicate, bool (n,).
        sibling: Whether a training row is more similar than is usual within the plain class, bool (n,). Texts generated from
            one prompt or original are.
        similarity: Threshold for siblings, a cosine of TF-IDF vectors of words.
        plain: The reference class for siblings: the most frequent class that is not positive.
    """

    near: NDArray[np.bool_]
    sibling: NDArray[np.bool_]
    similarity: float
    plain: str


def audit(source: Source, config: DataConfig) -> Audit:
    """Find scored rows that resemble training rows.

    Args:
        source: The training and scored rows.
        config: Settings for the threshold of near-duplicates (0.8 if it is turned off) and for the positive class.
    """
    trained, scored = ([text or "" for text in part.texts] for part in (source.train, source.scored))
    groups = clusters([*trained, *scored], config.near_duplicates or DataConfig().near_duplicates)
    near = np.isin(groups[len(trained) :], groups[: len(trained)])

    plain = plain_class(source.train, config.positive)
    if len(trained) > _LOOKED_AT:
        drawn = np.random.default_rng(0).choice(len(trained), _LOOKED_AT, replace=False)
        trained = [trained[row] for row in drawn]
        of_plain = np.array([source.train.labels[row] == plain for row in drawn])
    else:
        of_plain = np.array([label == plain for label in source.train.labels])
    vectorizer = TfidfVectorizer(analyzer=_words, sublinear_tf=True, min_df=2 if len(trained) > 1000 else 1)
    reference, queries = vectorizer.fit_transform(trained), vectorizer.transform(scored)
    nearest, usual = np.zeros(len(scored)), np.zeros(len(scored))
    for start in range(0, len(scored), _BLOCK):
        products = (queries[start : start + _BLOCK] @ reference.T).tocsc()
        nearest[start : start + _BLOCK] = products.max(axis=1).toarray().ravel()
        usual[start : start + _BLOCK] = products[:, of_plain].max(axis=1).toarray().ravel()
    is_plain = np.array([label == plain for label in source.scored.labels])
    similarity = float(np.quantile(usual[is_plain & ~near], 1 - _STRANGERS)) if (is_plain & ~near).any() else 1.0
    return Audit(near=near, sibling=(nearest > similarity) & ~near, similarity=similarity, plain=plain)


def plain_class(rows: Reviews, positive: str = "") -> str:
    """The most frequent class that is not positive; for reviews, the human ones."""
    labelled = rows.take(row for row, label in enumerate(rows.labels) if label is not None)
    positive_class = classes_of(labelled, positive)[1]
    return Counter(label for label in labelled.labels if label not in (None, positive_class)).most_common(1)[0][0]


def control(source: Source, config: DataConfig, max_fpr: float) -> Task:
    """A run that must score at chance level: rows of one class with random labels. A better score indicates a leak."""
    plain = plain_class(source.train, config.positive)
    rng = np.random.default_rng(0)

    def drawn(part: Reviews) -> Reviews:
        rows = part.take(row for row, label in enumerate(part.labels) if label == plain)
        return replace(rows, labels=[f"lot {number}" for number in rng.permutation(len(rows)) % 2], label_type="str")

    recipe = recipe_of(BASELINE, {"data.normalization": config.normalization})
    return Task(
        job=Job(name=CONTROL, trained_on=source.name, recipe=recipe, max_fpr=max_fpr),
        train=drawn(source.train),
        validation=drawn(source.validation),
        scored={CONTROL: drawn(source.scored)},
    )


def _words(text: str) -> list[str]:
    return fold(text).split()
