"""The result of an experiment, and the evidence that its sections are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.data.reviews import Reviews, class_indices
from reviewguard.evaluation.metrics import Scores
from reviewguard.experiments.jobs import Result
from reviewguard.experiments.page import Page
from reviewguard.experiments.results import logits_of
from reviewguard.inference.scoring import Floats


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The result of an experiment.

    Attributes:
        results: The results of all runs, failed ones included; the negative control is last.
        page: The report.
        folder: The folder with `results.jsonl`, `report.html`, `report.md` and the scores.
    """

    results: list[Result]
    page: Page
    folder: Path

    def to_text(self) -> str:
        """The findings and the path of the report."""
        return "\n".join([*self.page.short, f"report: {self.folder / 'report.html'}"])

    def __str__(self) -> str:
        return self.to_text()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Finished runs that scored the same rows.

    Attributes:
        rows: The scored rows.
        name: The name of these rows in results.
        results: Results by candidate, one per seed.
        logits: Logits by candidate, one array per seed, float32 (rows, classes).
    """

    rows: Reviews
    name: str
    results: dict[str, list[Result]]
    logits: dict[str, list[Floats]]

    @classmethod
    def of(cls, results: Sequence[Result], rows: Reviews, name: str, folder: Path) -> Evidence:
        """Collect the finished runs."""
        done: dict[str, list[Result]] = {}
        for result in results:
            if result.outcome == "done":
                done.setdefault(result.job.name, []).append(result)
        logits = {candidate: [logits_of(result, folder)[name] for result in runs] for candidate, runs in done.items()}
        return cls(rows=rows, name=name, results=done, logits=logits)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        return next(iter(self.results.values()))[0].classes

    @property
    def positive(self) -> str | None:
        """The positive class; None with more than two classes."""
        return next(iter(self.results.values()))[0].positive

    @property
    def y(self) -> NDArray[np.int64]:
        """Class indices (rows,)."""
        return class_indices(self.rows.require_complete()[1], self.classes)

    def scores(self, candidate: str) -> list[Scores]:
        """Scores of the most probable class, one per seed."""
        return [result.scores[self.name] for result in self.results[candidate]]

    def at_point(self, candidate: str) -> list[Scores]:
        """Scores at the operating point, one per seed."""
        return [result.at_point[self.name] for result in self.results[candidate] if result.at_point]

    def right(self) -> dict[str, NDArray[np.bool_]]:
        """Whether each prediction is correct, bool (seeds, rows), by candidate."""
        y = self.y
        return {name: np.array([seed.argmax(axis=1) == y for seed in logits]) for name, logits in self.logits.items()}


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds with the mean bounds of their intervals, which cover sampling of rows but not of seeds."""
    if not estimates or any(one.value is None for one in estimates):
        return Estimate(None, None, None)

    def of(values: Sequence[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if len(defined) == len(values) else None

    return Estimate(of([e.value for e in estimates]), of([e.low for e in estimates]), of([e.high for e in estimates]))


def percent(one: Estimate) -> str:
    """An estimate in percent, with its interval; empty if undefined."""
    if one.value is None:
        return ""
    if one.low is None or one.high is None:
        return f"{100 * one.value:.2f}"
    return f"{100 * one.value:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]"


def spread(values: Sequence[float]) -> str:
    """Standard deviation over seeds, in points; empty for a single seed."""
    return f"{100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""


def about(results: Sequence[Result], command: str) -> list[str]:
    """Hardware, package versions and command."""
    places: dict[str, list[str]] = {}
    for cost in (result.cost for result in results if result.cost):
        packages = ", ".join(f"{name} {number}" for name, number in cost.packages.items())
        devices = places.setdefault(packages, [])
        devices += [] if cost.device in devices else [cost.device]
    computed = "; ".join(f"{' and '.join(devices)}, with {packages}" for packages, devices in places.items())
    return [f"Computed on {computed or 'nothing'}.", f"Made by: {command}"]
