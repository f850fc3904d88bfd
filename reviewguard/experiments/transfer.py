"""Train on one source, score on the others: what a detector is worth on fakes that it has not seen."""

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
from reviewguard.data.reviews import Data, Reviews, concatenate, read
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.experiments import charts, sections
from reviewguard.experiments.audit import audit, control
from reviewguard.experiments.candidates import candidates, data_config, make_jobs
from reviewguard.experiments.comparison import require_some
from reviewguard.experiments.experiment import Evidence, Experiment, about, mean, percent
from reviewguard.experiments.jobs import BASELINE, Result, Task
from reviewguard.experiments.leave_out import leave_out as leave_out_columns
from reviewguard.experiments.page import Block, Figure, Items, Page, Section, Table
from reviewguard.experiments.results import folder_at
from reviewguard.experiments.rows import Source, divide_source, name_of, pool, unseen
from reviewguard.experiments.runs import run_all

#: Below so much recall on a source, a detector trained on another is called blind to it.
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
    """Train on each source, on all but one, and on all; score on every source; see `compare`.

    With `leave_out`, all sources are one, and what is left out of training is given by columns: a run for each combination of
    their values among the positives, scored on just those positives. A row is scored only where no training row repeats its text,
    but for case, punctuation and white space.

    Args:
        data: Sources, each as for `Classifier.train`; as a mapping, by name.
        presets: As for `compare`; the TF-IDF baseline always takes part.
        out: As for `compare`.
        by: Column that divides what is given further: each of its values is a source.
        leave_out: Columns, such as `("generator", "domain")`. The first says what made the positives: those with the value are
            left out of training wherever they stand. Each further one says which population a row is from: rows of both classes
            with the value are left out, and the positives are scored against negatives of that population.
        seeds: As for `compare`.
        jobs: As for `compare`.
        max_fpr: False-positive rate that thresholds are set for, on rows of the training sources.
        settings: As for `compare`.
        command: How the report says it was made.

    Raises:
        ConfigError: If a preset or a setting is not known.
        DataError: If there are fewer than two sources, their labels differ, there are not two of them, or every run failed.
        TrainingInterrupted: After Ctrl-C or SIGTERM; the same call goes on.
    """
    if leave_out:
        if by:
            raise ConfigError(f"by is {by!r}, and leave_out {', '.join(leave_out)}; give one of the two")
        return leave_out_columns(
            data, leave_out, presets, out=out, seeds=seeds, jobs=jobs, max_fpr=max_fpr, settings=settings, command=command
        )
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    recipes = candidates([*presets, BASELINE], given)
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
    *results, of_control = run_all([*tasks, control(everything, config, max_fpr)], folder, jobs)
    require_some(results)
    table = Transfer(sources=sources, arms=arms, scored=scored, presets=list(recipes), results=results, max_fpr=max_fpr)
    page = Page(
        title=f"Transfer between {', '.join(sources)}",
        short=[*_findings(table), sections.negative_control(of_control)],
        sections=[
            *(_matrices(table, preset) for preset in table.presets),
            _use(),
            *_leakage(table, config, folder),
            *sections.runs(results),
        ],
        about=about(results, command),
    )
    page.save(folder)
    return Experiment(results=[*results, of_control], page=page, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What was trained on what, and how it did.

    Attributes:
        sources: By name.
        arms: Names of the sources that each arm was trained on.
        scored: By arm, what was scored of each source.
        presets: Contestants.
        results: Of every run.
        max_fpr: What thresholds were set for.
    """

    sources: Mapping[str, Source]
    arms: Mapping[str, tuple[str, ...]]
    scored: Mapping[str, Mapping[str, Reviews]]
    presets: list[str]
    results: list[Result]
    max_fpr: float

    def metric(self, preset: str, arm: str, source: str, name: str, at_point: bool = True) -> Estimate:
        """A metric, mean over seeds; undefined where no run finished."""
        own = [one for one in self.results if (one.job.name, one.job.trained_on, one.outcome) == (preset, arm, "done")]
        return mean([(one.at_point if at_point else one.scores)[source].metrics[name] for one in own])

    def elsewhere(self, preset: str, name: str) -> dict[tuple[str, str], float]:
        """A metric at the operating point by (trained on, scored on), of models of one source on the others."""
        found = {
            (arm, source): self.metric(preset, arm, source, name).value
            for arm, own in self.arms.items()
            for source in self.sources
            if len(own) == 1 and source not in own
        }
        return {pair: value for pair, value in found.items() if value is not None}


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
        else ((name_of(one, f"source {number + 1}"), one) for number, one in enumerate(data))
    )
    sources: dict[str, Source] = {}
    for name, one in given:
        reviews = read(one, text=config.text, label=config.label, settings=config)
        parts = {name: reviews}
        if by:
            if by not in reviews.columns:
                raise DataError(f"{name} has no column {by!r} to divide it by; {nearest(by, reviews.columns)}")
            kinds = [str(value) for value in reviews.columns[by]]
            parts = {kind: reviews.take(row for row, own in enumerate(kinds) if own == kind) for kind in sorted(set(kinds))}
        if twice := sources.keys() & parts.keys():
            raise DataError(f"two sources are called {twice.pop()!r}; pass a mapping from names to data")
        sources |= {kind: divide_source(part, config, kind) for kind, part in parts.items()}
    if reserved := [name for name in sources if name == "all" or name.startswith("all but ")]:
        raise DataError(f"a source cannot be called {reserved[0]!r}: reports call several sources so; pass a mapping from names")
    if len(sources) < 2:
        raise DataError(
            f"transfer is between sources, and there is one only, {next(iter(sources), 'none')!r}; give another, or a column "
            "with by="
        )
    labels = {name: set(source.train.require_complete()[1]) for name, source in sources.items()}
    first = next(iter(labels.values()))
    if len(first) != 2 or any(own != first for own in labels.values()):
        told = "; ".join(f"{name}: {', '.join(sorted(own))}" for name, own in labels.items())
        raise DataError(f"transfer needs the same two labels in every source; got {told}")
    return sources


def _findings(table: Transfer) -> list[str]:
    short = []
    for preset in table.presets:
        found, wrong = (table.elsewhere(preset, metric) for metric in ("recall", "false_positive_rate"))
        if not found:
            continue
        worst = min(found, key=found.__getitem__)
        blind = sum(value < BLIND for value in found.values())
        short.append(
            f"{preset}, trained on one source, finds {_range(found)} % of the positives of another, and under "
            f"{100 * BLIND:.0f} % in {blind} of {len(found)} cases; least from {worst[0]} to {worst[1]}. It accuses "
            f"{_range(wrong)} % of the others, where {100 * table.max_fpr:g} % were meant."
        )
        left_out = {
            source: table.metric(preset, arm, source, "recall").value
            for arm, own in table.arms.items()
            for source in table.sources
            if len(own) == len(table.sources) - 1 and source not in own and len(own) > 1
        }
        known = {source: value for source, value in left_out.items() if value is not None}
        if known:
            told = ", ".join(f"{100 * value:.0f} % of {source}" for source, value in known.items())
            short.append(f"{preset}, trained on all sources but the one that is scored, finds {told}.")
    return short


def _range(values: Mapping[tuple[str, str], float]) -> str:
    return f"{100 * min(values.values()):.0f} to {100 * max(values.values()):.0f}"


def _matrices(table: Transfer, preset: str) -> Section:
    arms, sources = list(table.arms), list(table.sources)
    point = f"at a threshold set for {100 * table.max_fpr:g} % false positives on held-out rows of the training sources"
    blocks: list[Block] = [
        f"Rows are what was trained on, columns what was scored; in percent, {point}. Intervals are those of the scored rows. "
        "Cells where the scored source was trained on are what a report on one data set shows.",
    ]
    for metric, title in (("recall", "recall"), ("false_positive_rate", "false positives")):
        cells = {(arm, source): table.metric(preset, arm, source, metric) for arm in arms for source in sources}
        shares = np.array([[np.nan if cells[a, s].value is None else cells[a, s].value for s in sources] for a in arms])
        picture = charts.heatmap(shares, arms, sources, f"{title}, %")
        rows = [[arm, *(percent(cells[arm, source]) for source in sources)] for arm in arms]
        blocks += [
            Figure(
                f"{_slug(preset)}-{metric}", f"{title.capitalize()} of {preset} by what it was trained on and scored on.", picture
            ),
            Table([title, *sources], rows),
        ]
    rows = [[arm, *(percent(table.metric(preset, arm, source, "roc_auc")) for source in sources)] for arm in arms]
    blocks.append(Table(["ROC AUC", *sources], rows))
    rows = [
        [arm, *(percent(table.metric(preset, arm, source, "accuracy", at_point=False)) for source in sources)] for arm in arms
    ]
    blocks.append(Table(["accuracy, most probable class", *sources], rows))
    return Section(preset, blocks)


def _use() -> Section:
    return Section(
        "What this means for use",
        [
            Items(
                [
                    "A score on the source that a model was trained on says nothing of other generators, products or "
                    "languages: read the cells beside the diagonal.",
                    "Do not use a detector on texts of generators that it was not trained on as if its recall held there; a "
                    "low share of alarms may mean that it is blind.",
                    "A threshold that was set on one population keeps its rate of false positives on that one. Set it on "
                    "texts from where it will be used, and look at the false positives of other sources above.",
                    "Never act against a person on a model's word alone.",
                ]
            )
        ],
    )


def _leakage(table: Transfer, config: DataConfig, folder: Path) -> list[Section]:
    """The audit of each source by itself, and the scores of what was trained on it alone."""
    found = []
    for name, source in table.sources.items():
        own = replace(source, scored=table.scored[name][name])
        evidence = Evidence.of([one for one in table.results if one.job.trained_on == name], own.scored, name, folder)
        if evidence.results:
            section = sections.leakage(evidence, audit(own, config))
            found.append(replace(section, title=f"{section.title}: {name}"))
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
