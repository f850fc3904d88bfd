"""Leave-out evaluation: train without one kind of positives and score on that kind, such as a new generator or domain."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reviewguard.bundle.decision import log_odds
from reviewguard.bundle.estimate import Estimate
from reviewguard.config import DataConfig
from reviewguard.data.reviews import Reviews, class_indices, concatenate, read
from reviewguard.data.tables import Data
from reviewguard.errors import DataError, nearest
from reviewguard.experiments import charts, sections
from reviewguard.experiments.audit import control
from reviewguard.experiments.candidates import candidates, data_config, make_jobs
from reviewguard.experiments.comparison import require_some
from reviewguard.experiments.experiment import Experiment, about, mean, percent, spread
from reviewguard.experiments.jobs import Result, Task
from reviewguard.experiments.page import Figure, Page, Section, Table
from reviewguard.experiments.results import folder_at, logits_of
from reviewguard.experiments.rows import Source, divide_source, unseen
from reviewguard.experiments.runs import run_all
from reviewguard.training.plan import classes_of

#: Name of the scored rows in results.
SCORED = "left out"


@dataclass(frozen=True)
class Cell:
    """A combination of column values that one training run leaves out.

    Attributes:
        values: Values by column. The first column identifies the source of positives: positives with its value are left out
            everywhere. Each further column identifies a population: rows of both classes with its value are left out.
    """

    values: Mapping[str, str]

    @property
    def name(self) -> str:
        """The values, for tables."""
        return ", ".join(self.values.values())

    def leaves_out(self, row: Mapping[str, str], is_positive: bool) -> bool:
        """Whether a row is excluded from training."""
        (generator, value), *populations = self.values.items()
        return (is_positive and row[generator] == value) or any(row[column] == other for column, other in populations)

    def scores(self, row: Mapping[str, str], is_positive: bool) -> bool:
        """Whether a row is scored: a positive with all values, or a negative of the named populations (of all without any)."""
        columns = self.values.items() if is_positive else list(self.values.items())[1:]
        return all(row[column] == value for column, value in columns)


def leave_out(
    data: Sequence[Data] | Mapping[str, Data],
    columns: Sequence[str],
    presets: Iterable[str] = ("minilm-finetune",),
    *,
    out: str | os.PathLike[str],
    seeds: Sequence[int] = (42,),
    jobs: int = 1,
    max_fpr: float = 0.02,
    settings: Mapping[str, Any] | None = None,
    command: str = "reviewguard.experiments.transfer",
) -> Experiment:
    """Leave out each combination of column values in turn; see `transfer`."""
    given, folder = settings or {}, folder_at(out)
    config = data_config(given)
    recipes = candidates(presets, given)
    source, positive = _whole(data, columns, config)
    cells = _cells(source, columns, positive)
    tasks = [
        task
        for cell in cells
        for job in make_jobs(recipes, seeds, max_fpr, trained_on=f"all but {cell.name}")
        for task in [Task(job=job, **_parts(source, cell, positive))]
    ]
    *results, control_result = run_all([*tasks, control(source, config, max_fpr)], folder, jobs)
    require_some(results)
    scored = {cell.name: _parts(source, cell, positive)["scored"][SCORED] for cell in cells}
    recalls = {
        preset: {
            name: [_recall_at(result, rows, folder, max_fpr) for result in results if _is_of(result, preset, name)]
            for name, rows in scored.items()
        }
        for preset in recipes
    }
    page = Page(
        title=f"Left out: {', '.join(columns)}",
        short=[*_findings(recalls, max_fpr), sections.negative_control(control_result)],
        sections=[
            *(_section(preset, cells, recalls[preset], results, scored, max_fpr) for preset in recipes),
            *sections.runs(results),
        ],
        about=about(results, command),
    )
    page.save(folder)
    return Experiment(results=[*results, control_result], page=page, folder=folder)


def _whole(data: Sequence[Data] | Mapping[str, Data], columns: Sequence[str], config: DataConfig) -> tuple[Source, str]:
    given = list(data.values()) if isinstance(data, Mapping) else [data] if isinstance(data, str | os.PathLike) else list(data)
    parts = [read(source, text=config.text, label=config.label, settings=config) for source in given]
    for part in parts:
        for column in columns:
            if column not in part.columns:
                raise DataError(f"{part.source} has no column {column!r} to leave out by; {nearest(column, part.columns)}")
    source = divide_source(concatenate(parts, "the data"), config, "the data")
    classes, positive = classes_of(source.train, config.positive)
    if positive is None:
        raise DataError(f"leaving out positives needs two classes; got {len(classes)}: {', '.join(classes)}")
    return source, positive


def _cells(source: Source, columns: Sequence[str], positive: str) -> list[Cell]:
    rows = list(itertools.chain(*(_rows(part, columns) for part in (source.train, source.validation, source.scored))))
    labels = [*source.train.labels, *source.validation.labels, *source.scored.labels]
    kinds = sorted({tuple(row.values()) for row, label in zip(rows, labels, strict=True) if label == positive})
    if len(kinds) < 2:
        raise DataError(
            f"every {positive!r} has the same {' and '.join(columns)}, {', '.join(kinds[0]) if kinds else 'none'}; without it, "
            "there is nothing to train on. Name another column with --leave-out"
        )
    return [Cell(dict(zip(columns, kind, strict=True))) for kind in kinds]


def _rows(part: Reviews, columns: Iterable[str]) -> list[dict[str, str]]:
    columns = list(columns)
    return [dict(zip(columns, map(str, values), strict=True)) for values in zip(*(part.columns[c] for c in columns), strict=True)]


def _parts(source: Source, cell: Cell, positive: str) -> dict[str, Any]:
    """The rows of a run. All left-out rows are scored, since none was trained on; other negatives only if held out."""
    remaining, scorable = [], []
    for part in (source.train, source.validation, source.scored):
        rows = list(zip(_rows(part, cell.values), [label == positive for label in part.labels], strict=True))
        out = [cell.leaves_out(row, is_positive) for row, is_positive in rows]
        remaining.append(part.take(index for index, left_out in enumerate(out) if not left_out))
        scores = [cell.scores(*row) for row in rows]
        scorable.append(part.take(i for i, wanted in enumerate(scores) if wanted and (out[i] or part is source.scored)))
    train, validation, _ = remaining
    scored = unseen(concatenate(scorable, cell.name), concatenate([train, validation], cell.name))
    for what, part in (("to train on", train), ("to set a threshold on", validation), ("to score", scored)):
        if len(set(part.labels)) < 2:
            raise DataError(f"without {cell.name}, there are no rows of both labels {what}; leave out fewer columns, or add data")
    return {"train": train, "validation": validation, "scored": {SCORED: scored}}


def _is_of(result: Result, preset: str, cell: str) -> bool:
    return (result.job.name, result.job.trained_on, result.outcome) == (preset, f"all but {cell}", "done")


def _recall_at(result: Result, rows: Reviews, folder: os.PathLike[str], max_fpr: float) -> float:
    """Recall at the threshold that gives the scored negatives this false positive rate, as studies report it."""
    assert result.positive is not None
    positive = result.classes.index(result.positive)
    odds = log_odds(logits_of(result, folder)[SCORED])[:, positive]  # type: ignore[arg-type]
    hits = class_indices(rows.require_complete()[1], result.classes) == positive
    return float((odds[hits] > np.quantile(odds[~hits], 1 - max_fpr)).mean())


def _findings(recalls: Mapping[str, Mapping[str, Sequence[float]]], max_fpr: float) -> list[str]:
    short = []
    for preset, cells in recalls.items():
        known = {name: float(np.mean(values)) for name, values in cells.items() if values}
        if known:
            worst = min(known, key=known.__getitem__)
            short.append(
                f"{preset}: recall on the left-out positives is {100 * np.mean(list(known.values())):.0f} % on average and "
                f"{100 * known[worst]:.0f} % at worst ({worst}), at a false positive rate of {100 * max_fpr:g} %."
            )
    return short


def _section(
    preset: str,
    cells: Sequence[Cell],
    recalls: Mapping[str, Sequence[float]],
    results: Sequence[Result],
    scored: Mapping[str, Reviews],
    max_fpr: float,
) -> Section:
    rows, shares = [], {}
    for cell in cells:
        finished = [result for result in results if _is_of(result, preset, cell.name)]

        def metric(name: str, finished: list[Result] = finished) -> Estimate:
            return mean([result.at_point[SCORED].metrics[name] for result in finished])

        per_seed = list(recalls[cell.name])
        if per_seed:
            shares[cell.name] = (metric("recall"), metric("false_positive_rate"))
        labels = scored[cell.name].labels
        rows.append(
            [
                cell.name,
                " and ".join(f"{labels.count(label)} {label}" for label in sorted({label or "" for label in labels})),
                f"{100 * np.mean(per_seed):.2f}" if per_seed else "",
                spread(per_seed),
                *(percent(metric(name)) for name in ("recall", "false_positive_rate", "roc_auc")),
            ]
        )
    head = ["left out", "scored", f"recall at {100 * max_fpr:g} %", "SD over seeds", "recall", "false positive rate", "ROC AUC"]
    about = (
        f"Each row is a training run without the named rows, scored on those rows; in percent. Recall at {100 * max_fpr:g} % is "
        "read from the ROC curve of the scored rows. Recall and false positive rate are at a threshold set for a false positive "
        f"rate of {100 * max_fpr:g} % on held-out rows of the training data."
    )
    picture = charts.pairs(shares, ("recall at the threshold", "false positive rate at the threshold"))
    slug = "".join(letter if letter.isalnum() else "-" for letter in preset.casefold())
    return Section(
        preset, [about, Figure(f"{slug}-left-out", f"Recall and false positive rate of {preset}.", picture), Table(head, rows)]
    )
