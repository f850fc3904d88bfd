"""Whether what an experiment reports of a run is true to the logits that the run wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score, roc_curve

from reviewguard.data.reviews import Reviews, class_indices
from reviewguard.experiments.jobs import Result
from reviewguard.experiments.results import logits_of


def assert_measured(result: Result, scored: Mapping[str, Reviews], folder: Path) -> None:
    """Hold the metrics of a run of two classes against what scikit-learn makes of its logits."""
    logits = logits_of(result, folder)
    assert logits.keys() == result.scores.keys() == result.at_point.keys() == scored.keys()
    for name, part in scored.items():
        y = class_indices(part.require_complete()[1], result.classes)
        positive = result.classes.index(result.positive)
        margin = (logits[name][:, positive] - logits[name][:, 1 - positive]).astype(float)
        found = {metric: one.value for metric, one in result.scores[name].metrics.items()}
        called = logits[name].argmax(axis=1)
        assert result.scores[name].confusion == confusion_matrix(y, called, labels=[0, 1]).tolist()
        assert found["accuracy"] == pytest.approx(accuracy_score(y, called))
        assert found["f1"] == pytest.approx(f1_score(y, called, pos_label=positive))
        assert found["roc_auc"] == pytest.approx(roc_auc_score(y == positive, margin), abs=1e-3)
        there = result.at_point[name].metrics
        curve = np.stack(roc_curve(y == positive, margin, drop_intermediate=False)[:2])
        point = np.array([[there["false_positive_rate"].value], [there["recall"].value]])
        assert np.abs(curve - point).sum(axis=0).min() < 1e-6, "some threshold gives these two"
