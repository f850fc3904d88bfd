"""Reports: what a model scored, beside the baseline, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.data.reviews import class_indices
from reviewguard.evaluation.metrics import Scores, measure
from reviewguard.evaluation.tables import markdown_table, text_table


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a model did on some rows.

    Attributes:
        name: Which rows.
        rows: Number of rows.
        truncated: Rows longer than the model reads.
        seen: Rows whose text the model was trained on: they flatter it. None: the model does not say.
        classes: In the order of the confusion matrix.
        positive: The class that binary metrics are about; None: macro averages.
        model: The model's scores.
        baseline: Scores of TF-IDF under a linear SVM, fitted on the same training rows; None where the model was made without it
            (`fit`).
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
        """The report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def to_text(self) -> str:
        """The report for a terminal."""
        return self._render(text_table, "{}")

    def to_markdown(self) -> str:
        """The report as Markdown."""
        return self._render(markdown_table, "### {}")

    def __str__(self) -> str:
        return self.to_text()

    def _render(self, table: Callable[[list[list[str]]], str], heading: str) -> str:
        about = f"metrics are of the class {self.positive!r}" if self.positive else "metrics are macro averages"
        title = f"{self.name}: {self.rows} rows, {about}"
        title += f"; {self.truncated} texts were longer than the model reads" if self.truncated else ""
        title += f"; the model was trained on {self.seen} of these texts, which flatters it" if self.seen else ""
        scores = [("model", self.model), *([("TF-IDF baseline", self.baseline)] if self.baseline else [])]
        metrics = [["metric, with 95 % interval", *(name for name, _ in scores)]]
        metrics += [[name, *(str(of.metrics[name]) for _, of in scores)] for name in self.model.metrics]
        classes = [["class", "precision", "recall", "f1", "rows", *(f"called {name}" for name in self.classes)]]
        for row, name in enumerate(self.classes):
            own = self.model.per_class[name]
            numbers = [f"{value:.4f}" for value in (own.precision, own.recall, own.f1)]
            classes.append([name, *numbers, str(own.rows), *(str(count) for count in self.model.confusion[row])])
        parts = [heading.format(title), table(metrics), table(classes)]
        if self.baseline and (self.model.metrics["f1"].value or 0) < (self.baseline.metrics["f1"].value or 0):
            parts.append("A bag of words does better than this model here, by F1.")
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
    """Measure a model, and the baseline, on the same rows.

    Args:
        name: Which rows.
        labels: True labels (n,), all of them classes.
        scores: The model's, of each class (n, classes); the largest is that of its label.
        baseline: The baseline's scores (n, classes); None where there is none.
        classes: In the order of the columns.
        positive: See `reviewguard.evaluation.metrics.measure`.
        truncated: Rows longer than the model reads.
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
