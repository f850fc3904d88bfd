"""Compare approaches on one identical split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reviewguard.data.reviews import Data, read
from reviewguard.experiments import charts, sections
from reviewguard.experiments.candidates import candidates, data_config
from reviewguard.experiments.comparison import Comparison, hold
from reviewguard.experiments.experiment import Evidence, Experiment, about, percent
from reviewguard.experiments.jobs import BASELINE
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
    """Train every approach with every seed on the same rows, score all on the same others, and write a report.

    Each run has a process of its own. A run that is finished is kept, one that fails does not stop the others: the same
    call goes on with what is missing. A script that calls this needs `if __name__ == "__main__":`: processes are spawned.

    Args:
        data: As for `Classifier.train`. A column of splits is respected; what is scored never chose an epoch.
        presets: Presets or recipes, with settings after plus signs (`stella-qlora+loop.epochs=5`), or the groups "minilm" and
            "study". The TF-IDF baseline always takes part.
        out: Folder for `results.jsonl`, `report.html`, `report.md` and the scores.
        seeds: Of training; rows are divided the same way for all.
        jobs: Runs side by side.
        max_fpr: False-positive rate of the operating point.
        settings: Settings for all, such as `{"data.text": "review"}`.
        command: How the report says it was made.

    Raises:
        ConfigError: If a preset or a setting is not known.
        DataError: If the rows cannot be used, or every run failed.
        TrainingInterrupted: After Ctrl-C or SIGTERM; the same call goes on.
    """
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    recipes = candidates([*presets, BASELINE], given)
    source = divide_source(read(data, text=config.text, label=config.label, settings=config), config, name_of(data))
    comparison = hold(source, recipes, config, folder, seeds=seeds, jobs=jobs, max_fpr=max_fpr)
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
                "Quality against cost",
                [
                    "Speed is from text to logits in torch on the machine of the run; training is that of the slowest seed. "
                    "Heads on frozen vectors share a cache: the first to need the vectors pays for them. Runs side by side "
                    "slow each other down. Exports are faster.",
                    Figure(
                        "pareto",
                        "Accuracy against speed. The line is the front that nothing beats in both.",
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
        less = pairs[best, choice].difference
        short.append(
            f"Recommended: {choice}, {100 * accuracy[choice]:.2f} %. What it lacks is not more than chance ({percent(less)} "
            f"points), and it is {speed[choice] / speed[best]:.1f} times as fast."
        )
    else:
        short.append("Recommended: the same; every faster model is worse by more than chance.")
    if accuracy[best] <= accuracy.get(BASELINE, 0):
        short.append("Nothing is more accurate than the bag of character n-grams.")
    return short
