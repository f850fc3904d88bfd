"""Transfer: train on one source, score on the others, to measure performance on out-of-domain fakes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reviewguard.bundle.estimate import Estimate
from reviewguard.config import DataConfig
from reviewguard.data.reviews import Reviews, concatenate, read
from reviewguard.data.tables import Data
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.experiments import charts, sections
from reviewguard.experiments.audit import audit, control
from reviewguard.experiments.candidates import candidates, data_config, make_jobs
from reviewguard.experiments.comparison import require_some
from reviewguard.experiments.experiment import Evidence, Experiment, about, mean, percent
from reviewguard.experiments.jobs import Result, Task
from reviewguard.experiments.leave_out import leave_out as leave_out_columns
from reviewguard.experiments.page import Block, Figure, Items, Page, Section, Table
from reviewguard.experiments.results import folder_at
from reviewguard.experiments.rows import Source, divide_source, name_of, pool, unseen
from reviewguard.experiments.runs import run_all

#: Recall on a source below which a detector trained on another source counts as blind to it.
BLIND = 0.5


def transfer(
    data: Sequence[Data] | Mapping[str, Data],
    presets: Iterable[str] = ("minilm-finetune",),
    *,
    out: str | os.PathLike[str],
    by: str = "",
    leave_out: Sequence[str] = (),
    seeds: Sequence[int] = (42,),
    jobs: int = 1,
    max_fpr: float = 0.02,
    settings: Mapping[str, Any] | None = None,
    command: str = "reviewguard.experiments.transfer",
) -> Experiment:
    """Train on each source, on all but one, and on all; score on every source; see also `compare`.

    With `leave_out`, all sources are combined, and columns determine the rows left out of training: there is one run for each
    combination of their values among the positives, scored on those positives. A row is scored only if its text is not in the
    training rows, ignoring case, punctuation and white space.

    Args:
        data: Sources, each as for `Classifier.train`; a mapping names them.
        presets: As for `compare`; the TF-IDF baseline is always included.
        out: As for `compare`.
        by: Column that splits the data further: each of its values becomes a source.
        leave_out: Columns, such as `("generator", "domain")`. The first identifies the source of positives: positives with the
            value are left out of training everywhere. Each further column identifies a population: rows of both classes with the
            value are left out, and the positives are scored against negatives of that population.
        seeds: As for `compare`.
        jobs: As for `compare`.
        max_fpr: False positive rate that thresholds are set for, on held-out rows of the training sources.
        settings: As for `compare`.
        command: The command that the report names.

    Raises:
        ConfigError: If a preset or a setting is unknown.
        DataError: If there are fewer than two sources, their labels differ, there are not two labels, or every run failed.
        TrainingInterrupted: After Ctrl-C or SIGTERM; the same call resumes.
    """
    if leave_out:
        if by:
            raise ConfigError(f"by is {by!r} and leave_out is {', '.join(leave_out)}; give one of the two")
        return leave_out_columns(
            data, leave_out, presets, out=out, seeds=seeds, jobs=jobs, max_fpr=max_fpr, settings=settings, command=command
        )
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    recipes = candidates(presets, given)
    sources = _sources(data, by, config)
    arms = _arms(list(sources))
    tasks, scored = [], {}
    for arm, names in arms.items():
        trained = pool([sources[name] for name in names], arm)
        known = concatenate([trained.train, trained.validation], arm)
        scored[arm] = {name: unseen(source.scored, known) for name, source in sources.items()}
        tasks += [
            Task(job=job, train=trained.train, validation=trained.validation, scored=scored[arm])
            for job in make_jobs(recipes, seeds, max_fpr, trained_on=arm)
        ]
    everything = pool(list(sources.values()), "all")
    *results, control_result = run_all([*tasks, control(everything, config, max_fpr)], folder, jobs)
    require_some(results)
    table = Transfer(sources=sources, arms=arms, scored=scored, presets=list(recipes), results=results, max_fpr=max_fpr)
    page = Page(
        title=f"Transfer between {', '.join(sources)}",
        short=[*_findings(table), sections.negative_control(control_result)],
        sections=[
            *(_matrices(table, preset) for preset in table.presets),
            _use(),
            *_leakage(table, config, folder),
            *sections.runs(results),
        ],
        about=about(results, command),
    )
    page.save(folder)
    return Experiment(results=[*results, control_result], page=page, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The results of all combinations of training source and scored source.

    Attributes:
        sources: Sources by name.
        arms: Names of the training sources, by arm.
        scored: Scored rows of each source, by arm.
        presets: Names of the candidates.
        results: Results of all runs.
        max_fpr: False positive rate that thresholds were set for.
    """

    sources: Mapping[str, Source]
    arms: Mapping[str, tuple[str, ...]]
    scored: Mapping[str, Mapping[str, Reviews]]
    presets: list[str]
    results: list[Result]
    max_fpr: float

    def metric(self, preset: str, arm: str, source: str, name: str, at_point: bool = True) -> Estimate:
        """A metric, mean over seeds; undefined if no run finished."""
        runs = [run for run in self.results if (run.job.name, run.job.trained_on, run.outcome) == (preset, arm, "done")]
        return mean([(run.at_point if at_point else run.scores)[source].metrics[name] for run in runs])

    def truncated(self, preset: str) -> dict[str, float]:
        """Share of the scored rows of each source that were truncated, by models trained on all sources."""
        runs = [run for run in self.results if (run.job.name, run.job.trained_on, run.outcome) == (preset, "all", "done")]
        return {name: count / len(self.scored["all"][name]) for run in runs[:1] for name, count in run.truncated.items()}

    def elsewhere(self, preset: str, name: str) -> dict[tuple[str, str], float]:
        """A metric at the operating point of models trained on one source, by (training source, other source)."""
        values = {
            (arm, source): self.metric(preset, arm, source, name).value
            for arm, training_sources in self.arms.items()
            for source in self.sources
            if len(training_sources) == 1 and source not in training_sources
        }
        return {pair: value for pair, value in values.items() if value is not None}


def _arms(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    arms: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    if len(names) > 2:
        arms |= {f"all but {name}": tuple(other for other in names if other != name) for name in names}
    return {**arms, "all": tuple(names)}


def _sources(data: Sequence[Data] | Mapping[str, Data], by: str, config: DataConfig) -> dict[str, Source]:
    if isinstance(data, str | os.PathLike):
        data = [data]
    given = (
        data.items()
        if isinstance(data, Mapping)
        else ((name_of(source, f"source {number + 1}"), source) for number, source in enumerate(data))
    )
    sources: dict[str, Source] = {}
    for name, content in given:
        reviews = read(content, text=config.text, label=config.label, settings=config)
        parts = {name: reviews}
        if by:
            if by not in reviews.columns:
                raise DataError(f"{name} has no column {by!r} to split it by; {nearest(by, reviews.columns)}")
            kinds = [str(value) for value in reviews.columns[by]]
            parts = {kind: reviews.take(row for row, value in enumerate(kinds) if value == kind) for kind in sorted(set(kinds))}
        if twice := sources.keys() & parts.keys():
            raise DataError(f"two sources are called {twice.pop()!r}; pass a mapping from names to data")
        sources |= {kind: divide_source(part, config, kind) for kind, part in parts.items()}
    if reserved := [name for name in sources if name == "all" or name.startswith("all but ")]:
        raise DataError(
            f"a source cannot be called {reserved[0]!r}, which is reserved for combined sources; pass a mapping from names"
        )
    if len(sources) < 2:
        raise DataError(
            f"transfer needs at least two sources; got {', '.join(map(repr, sources)) or 'none'}; add another, or name a column "
            "with by="
        )
    labels = {name: set(source.train.require_complete()[1]) for name, source in sources.items()}
    first = next(iter(labels.values()))
    if len(first) != 2 or any(other != first for other in labels.values()):
        listing = "; ".join(f"{name}: {', '.join(sorted(names))}" for name, names in labels.items())
        raise DataError(f"transfer needs the same two labels in every source; got {listing}")
    return sources


def _findings(table: Transfer) -> list[str]:
    short = []
    for preset in table.presets:
        recall, rate = (table.elsewhere(preset, metric) for metric in ("recall", "false_positive_rate"))
        if not recall:
            continue
        worst = min(recall, key=recall.__getitem__)
        blind = sum(value < BLIND for value in recall.values())
        short.append(
            f"{preset}, trained on one source: recall on another source is {_range(recall)} %. It is below "
            f"{100 * BLIND:.0f} % in {blind} of {len(recall)} cases and lowest from {worst[0]} to {worst[1]}. The false positive "
            f"rate is {_range(rate)} %, with thresholds set for {100 * table.max_fpr:g} %."
        )
        left_out = {
            source: table.metric(preset, arm, source, "recall").value
            for arm, training_sources in table.arms.items()
            for source in table.sources
            if len(training_sources) == len(table.sources) - 1 and source not in training_sources and len(training_sources) > 1
        }
        known = {source: value for source, value in left_out.items() if value is not None}
        if known:
            listing = ", ".join(f"{100 * value:.0f} % on {source}" for source, value in known.items())
            short.append(f"{preset}, trained on all sources except the scored one: recall is {listing}.")
    return short


def _range(values: Mapping[tuple[str, str], float]) -> str:
    return f"{100 * min(values.values()):.0f} to {100 * max(values.values()):.0f}"


def _matrices(table: Transfer, preset: str) -> Section:
    arms, sources = list(table.arms), list(table.sources)
    point = f"at a threshold set for a false positive rate of {100 * table.max_fpr:g} % on held-out rows of the training sources"
    blocks: list[Block] = [
        f"Rows are training sources, columns are scored sources; in percent, {point}. Intervals are over the scored rows. "
        "Where the scored source is also a training source, the cell shows what an evaluation on a single data set would show.",
    ]
    for metric, title in (("recall", "recall"), ("false_positive_rate", "false positive rate")):
        cells = {(arm, source): table.metric(preset, arm, source, metric) for arm in arms for source in sources}
        shares = np.array([[np.nan if cells[a, s].value is None else cells[a, s].value for s in sources] for a in arms])
        picture = charts.heatmap(shares, arms, sources, f"{title}, %")
        rows = [[arm, *(percent(cells[arm, source]) for source in sources)] for arm in arms]
        blocks += [
            Figure(
                f"{_slug(preset)}-{metric}", f"{title.capitalize()} of {preset} by training source and scored source.", picture
            ),
            Table([title, *sources], rows),
        ]
    rows = [[arm, *(percent(table.metric(preset, arm, source, "roc_auc")) for source in sources)] for arm in arms]
    blocks.append(Table(["ROC AUC", *sources], rows))
    rows = [
        [arm, *(percent(table.metric(preset, arm, source, "accuracy", at_point=False)) for source in sources)] for arm in arms
    ]
    blocks.append(Table(["accuracy, most probable class", *sources], rows))
    rows = [[arm, *(percent(table.metric(preset, arm, source, "f1", at_point=False)) for source in sources)] for arm in arms]
    blocks.append(Table(["F1, most probable class", *sources], rows))
    truncated = table.truncated(preset)
    if any(truncated.values()):
        blocks.append(Table(["", *truncated], [["truncated, %", *(f"{100 * share:.1f}" for share in truncated.values())]]))
    return Section(preset, blocks)


def _use() -> Section:
    return Section(
        "Implications for use",
        [
            Items(
                [
                    "A score on the training source says nothing about other generators, products or languages: read the "
                    "off-diagonal cells.",
                    "Do not expect the same recall on generators that a detector was not trained on. If it flags few texts "
                    "there, it may be missing the fakes.",
                    "A threshold keeps its false positive rate only on the population that it was set on. Set it on texts of "
                    "the intended use, and compare the false positive rates of other sources above.",
                    "Never act against a person on a model's prediction alone.",
                ]
            )
        ],
    )


def _leakage(table: Transfer, config: DataConfig, folder: Path) -> list[Section]:
    """The audit of each source, and the accuracy of models trained on that source alone."""
    audits = []
    for name, source in table.sources.items():
        single = replace(source, scored=table.scored[name][name])
        evidence = Evidence.of([run for run in table.results if run.job.trained_on == name], single.scored, name, folder)
        if evidence.results:
            section = sections.leakage(evidence, audit(single, config))
            audits.append(replace(section, title=f"{section.title}: {name}"))
    return audits


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
