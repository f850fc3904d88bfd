"""How well a detector does on each source, at a threshold that none of the scored rows set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from _pool import PRODUCTS, Row
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from reviewguard.evaluation.operating import operating_point


def threshold(rows: Sequence[Row], odds: NDArray[np.float64], max_fpr: float) -> float:
    """Log-odds from which a review is called a fake: of each source's people at most a share is expected to be.

    Args:
        rows: To set it on.
        odds: Log-odds that each is a fake, (n,).
        max_fpr: The share.
    """
    found = []
    for source in dict.fromkeys(row.source for row in rows):
        own = np.array([row.source == source for row in rows])
        y = np.array([row.label == "fake" for row in rows])[own].astype(np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a source with few rows the rate is not known well; the intervals say so
            found.append(operating_point(np.stack([-odds[own] / 2, odds[own] / 2], axis=1), y, 1, max_fpr).threshold)
    return max(found)


def judge(rows: Sequence[Row], odds: NDArray[np.float64], limit: float, max_fpr: float) -> dict[str, dict[str, Any]]:
    """By source: accuracy, recall, false positives, each with its 95 % interval, and the area under the ROC curve.

    `recall_at` is what would be found where just `max_fpr` of the people are called fakes who write about products, in these rows.
    """
    found = {}
    people = np.array([row.label == "real" and row.source in PRODUCTS for row in rows])
    at = np.quantile(odds[people], 1 - max_fpr)
    for source in dict.fromkeys(row.source for row in rows):
        own = np.array([row.source == source for row in rows])
        fake = np.array([row.label == "fake" for row in rows])[own]
        called = odds[own] >= limit
        found[source] = {
            "accuracy": share(called == fake),
            "recall": share(called[fake]),
            "recall_at": share(odds[own][fake] > at),
            "false_positive_rate": share(called[~fake]),
            "auc": float(roc_auc_score(fake, odds[own])),
        }
    return found


def share(hits: NDArray[np.bool_]) -> dict[str, float]:
    """A share with Wilson's interval (1927), and what it is a share of."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"value": float(hits.mean()), "low": float(interval.low), "high": float(interval.high), "rows": len(hits)}
