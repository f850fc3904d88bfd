"""Tune settings with scikit-learn's grid search. `Classifier` is a scikit-learn estimator.

python examples/grid_search.py
"""

from __future__ import annotations

import csv
from pathlib import Path

from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV

from reviewguard import Classifier

with open(Path(__file__).with_name("sample_reviews.csv"), encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))[:80]  # a subset, for speed
texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]

search = GridSearchCV(
    Classifier("minilm-logreg"), {"C": [0.1, 10]}, cv=2, scoring=make_scorer(f1_score, pos_label="fake"), refit=True
)
search.fit(texts, labels)
print(f"best: {search.best_params_}, F1 {search.best_score_:.3f} (demonstration data: not meaningful)")
search.best_estimator_.save("tuned")
