"""Run all candidates on one source, with the audit and the negative control of every report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewguard.config import DataConfig
from reviewguard.errors import DataError
from reviewguard.experiments.audit import Audit, audit, control
from reviewguard.experiments.candidates import make_jobs
from reviewguard.experiments.experiment import Evidence
from reviewguard.experiments.jobs import Result, Task
from reviewguard.experiments.rows import Source
from reviewguard.experiments.runs import run_all

#: Name of the scored rows in results.
SCORED = "scored"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The contents of a report.

    Attributes:
        source: The rows.
        results: The results of all runs except the control.
        evidence: The finished runs.
        audit: The leakage audit of the scored rows.
        control: The result of the run with random labels.
    """

    source: Source
    results: list[Result]
    evidence: Evidence
    audit: Audit
    control: Result


def run_comparison(
    source: Source,
    recipes: Mapping[str, dict[str, Any]],
    config: DataConfig,
    folder: Path,
    *,
    seeds: Sequence[int],
    jobs: int,
    max_fpr: float,
) -> Comparison:
    """Run every recipe with every seed.

    Raises:
        DataError: If every run failed.
    """
    tasks = [
        Task(job=job, train=source.train, validation=source.validation, scored={SCORED: source.scored})
        for job in make_jobs(recipes, seeds, max_fpr, trained_on=source.name)
    ]
    *results, control_result = run_all([*tasks, control(source, config, max_fpr)], folder, jobs)
    require_some(results)
    evidence = Evidence.of(results, source.scored, SCORED, folder)
    return Comparison(source=source, results=results, evidence=evidence, audit=audit(source, config), control=control_result)


def require_some(results: Sequence[Result]) -> None:
    """Raise DataError if every run failed."""
    if all(result.outcome == "failed" for result in results):
        raise DataError("every run failed; " + "; ".join(sorted({f"{result.job.name}: {result.error}" for result in results})))
