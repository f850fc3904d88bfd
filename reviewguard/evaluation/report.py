"""Reports of a model's scores next to the baseline's, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import class_indices
from reviewguard.evaluation.metrics import Scores, measure
from reviewguard.evaluation.tables import markdown_table, text_table


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of a model on labelled rows.

    Attributes:
        name: Name of the rows.
        rows: Number of rows.
        truncated: Number of rows longer than the model reads.
        seen: Number of rows whose text was in the training data; scores on them are optimistic. None: the model does not record
            this.
        classes: Classes in the order of the confusion matrix.
        positive: Positive class of binary metrics. None: macro averages.
        model: Scores of the model.
        baseline: Scores of the TF-IDF baseline, fitted on the same training rows. None: the model was trained without it (`fit`).
    """

    name: str
    rows: int
    truncated: int
    classes: list[str]
    positive: str | None
    model: Scores
    baseline: Scores | None
    seen: int | None = None

    def to_json(self) -> str:
        """Format as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def to_text(self) -> str:
        """Format for a terminal."""
        return self._render(text_table, "{}")

    def to_markdown(self) -> str:
        """Format as Markdown."""
        return self._render(markdown_table, "### {}")

    def __str__(self) -> str:
        return self.to_text()

    def _render(self, table: Callable[[list[list[str]]], str], heading: str) -> str:
        about = f"metrics of the class {self.positive!r}" if self.positive else "macro-averaged metrics"
        title = f"{self.name}: {self.rows} rows, {about}"
        title += f"; {self.truncated} texts were longer than the model reads" if self.truncated else ""
        title += f"; the model was trained on {self.seen} of these texts, so scores are optimistic" if self.seen else ""
        scores = [("model", self.model), *([("TF-IDF baseline", self.baseline)] if self.baseline else [])]
        metrics = [["metric, with 95 % interval", *(name for name, _ in scores)]]
        metrics += [[name, *(str(of.metrics[name]) for _, of in scores)] for name in self.model.metrics]
        classes = [["class", "precision", "recall", "f1", "rows", *(f"predicted {name}" for name in self.classes)]]
        for row, name in enumerate(self.classes):
            scores_of = self.model.per_class[name]
            numbers = [f"{value:.4f}" for value in (scores_of.precision, scores_of.recall, scores_of.f1)]
            classes.append([name, *numbers, str(scores_of.rows), *(str(count) for count in self.model.confusion[row])])
        parts = [heading.format(title), table(metrics), table(classes)]
        if self.baseline and (self.model.metrics["f1"].value or 0) < (self.baseline.metrics["f1"].value or 0):
            parts.append("The TF-IDF baseline has a higher F1 than this model on these rows.")
        return "\n\n".join(parts)


def make_report(
    name: str,
    labels: Sequence[str],
    scores: NDArray[np.floating],
    baseline: NDArray[np.floating] | None,
    *,
    classes: Sequence[str],
    positive: str | None,
    truncated: int,
    seen: int | None = None,
) -> Report:
    """Score a model and the baseline on the same rows.

    Args:
        name: Name of the rows.
        labels: True labels, (n,), all of them in `classes`.
        scores: Scores of the model, (n, classes); the class with the largest score is the prediction.
        baseline: Scores of the baseline, (n, classes). None: no baseline.
        classes: Class names, in the order of the columns.
        positive: See `reviewguard.evaluation.metrics.measure`.
        truncated: Number of rows longer than the model reads.
        seen: See `Report`.
    """
    y = class_indices(labels, classes)
    return Report(
        name=name,
        rows=len(y),
        truncated=truncated,
        classes=list(classes),
        positive=positive,
        model=measure(y, scores, classes, positive),
        baseline=None if baseline is None else measure(y, baseline, classes, positive),
        seen=seen,
    )
