"""Comparison of candidates on one identical split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reviewguard.data.reviews import read
from reviewguard.data.tables import Data
from reviewguard.experiments import charts, sections
from reviewguard.experiments.candidates import BASELINE, candidates, data_config
from reviewguard.experiments.comparison import Comparison, run_comparison
from reviewguard.experiments.experiment import Evidence, Experiment, about, percent
from reviewguard.experiments.page import Figure, Page, Section
from reviewguard.experiments.results import folder_at
from reviewguard.experiments.rows import divide_source, name_of
from reviewguard.experiments.significance import Difference, front, paired, recommend


def compare(
    data: Data,
    presets: Iterable[str] = ("minilm",),
    *,
    out: str | os.PathLike[str],
    seeds: Sequence[int] = (42, 43, 44),
    jobs: int = 1,
    max_fpr: float = 0.01,
    settings: Mapping[str, Any] | None = None,
    command: str = "reviewguard.experiments.compare",
) -> Experiment:
    """Train every candidate with every seed on the same rows, score all of them on the same held-out rows, and write a report.

    Each run has its own process. Finished runs are kept, and a failed run does not stop the others; the same call resumes with
    the missing runs. Processes are spawned, so a script that calls this needs `if __name__ == "__main__":`.

    Args:
        data: As for `Classifier.train`. A split column is respected; the scored rows never choose an epoch.
        presets: Presets or recipes, with settings after plus signs (`stella-qlora+loop.epochs=5`), or the groups "minilm" and
            "study". The TF-IDF baseline is always included.
        out: Folder for `results.jsonl`, `report.html`, `report.md` and the scores.
        seeds: Seeds of training. The split is the same for all.
        jobs: Number of parallel runs.
        max_fpr: False positive rate of the operating point.
        settings: Settings of all candidates, such as `{"data.text": "review"}`.
        command: The command that the report names.

    Raises:
        ConfigError: If a preset or a setting is unknown.
        DataError: If the rows cannot be used, or every run failed.
        TrainingInterrupted: After Ctrl-C or SIGTERM; the same call resumes.
    """
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    recipes = candidates(presets, given)
    source = divide_source(read(data, text=config.text, label=config.label, settings=config), config, name_of(data))
    comparison = run_comparison(source, recipes, config, folder, seeds=seeds, jobs=jobs, max_fpr=max_fpr)
    page = _page(comparison, max_fpr, command)
    page.save(folder)
    return Experiment(results=[*comparison.results, comparison.control], page=page, folder=folder)


def _page(comparison: Comparison, max_fpr: float, command: str) -> Page:
    evidence = comparison.evidence
    pairs = paired(evidence.right())
    accuracy = {name: sections.accuracy(evidence, name).value or 0.0 for name in evidence.results}
    speed = {name: sections.speed(evidence, name) for name in evidence.results}
    points = {name: (speed[name], accuracy[name]) for name in evidence.results}
    on_front = front(points)
    return Page(
        title=f"Comparison on {comparison.source.name}",
        short=[*_findings(evidence, accuracy, speed, pairs), *sections.shared_findings(comparison)],
        sections=[
            sections.scores(evidence, max_fpr),
            sections.differences(evidence, pairs),
            Section(
                "Accuracy and cost",
                [
                    "Speed is measured from text to logits in torch on the machine of the run; training time is that of the "
                    "slowest seed. Heads on frozen embeddings share a cache: the first run that needs the embeddings pays for "
                    "them. Parallel runs slow each other down. Exports are faster.",
                    Figure(
                        "pareto",
                        "Accuracy against speed. The line is the Pareto front.",
                        charts.pareto(points, on_front, "accuracy"),
                    ),
                    sections.costs(evidence),
                ],
            ),
            *sections.details(evidence),
            sections.leakage(evidence, comparison.audit),
            *sections.runs(comparison.results),
        ],
        about=about(comparison.results, command),
    )


def _findings(
    evidence: Evidence, accuracy: dict[str, float], speed: dict[str, float], pairs: dict[tuple[str, str], Difference]
) -> list[str]:
    best = max(accuracy, key=accuracy.__getitem__)
    short = [f"Most accurate: {best}, {100 * accuracy[best]:.2f} % of {len(evidence.rows)} rows."]
    if len(accuracy) == 1:
        return short
    choice = recommend(accuracy, speed, pairs)
    if choice != best:
        difference = pairs[best, choice].difference
        short.append(
            f"Recommended: {choice}, {100 * accuracy[choice]:.2f} %. It is not significantly less accurate "
            f"({percent(difference)} points) and {speed[choice] / speed[best]:.1f} times as fast."
        )
    else:
        short.append("Recommended: the same model; every faster one is significantly less accurate.")
    if accuracy[best] <= accuracy.get(BASELINE, 0):
        short.append("No candidate is more accurate than the TF-IDF baseline.")
    return short
