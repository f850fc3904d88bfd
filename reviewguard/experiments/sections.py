"""Sections and findings that reports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.evaluation import metrics
from reviewguard.experiments import charts
from reviewguard.experiments.audit import CONTROL, Audit
from reviewguard.experiments.comparison import Comparison
from reviewguard.experiments.experiment import Evidence, mean, percent, spread
from reviewguard.experiments.jobs import Result
from reviewguard.experiments.page import Block, Figure, Items, Section, Table
from reviewguard.experiments.significance import Difference
from reviewguard.experiments.slices import slices
from reviewguard.inference.scoring import Floats

SEEDS_NOTE = (
    "Each value is the mean over seeds, in percent. Intervals come from a bootstrap over the scored rows; their bounds are "
    "averaged over seeds. The standard deviation (SD) of accuracy over seeds is in points."
)


def scores(evidence: Evidence, max_fpr: float) -> Section:
    """Every metric of every candidate; the most accurate candidate is first."""
    names = [name for name in next(iter(evidence.results.values()))[0].scores[evidence.name].metrics if name != "specificity"]
    order = ranked(evidence)
    at_point = evidence.positive is not None
    head = ["model", "seeds", *names, "accuracy SD over seeds"]
    head += [f"recall at {100 * max_fpr:g} %", "measured false positive rate"] if at_point else []
    rows = []
    for name in order:
        per_seed = evidence.scores(name)
        row = [name, str(len(per_seed)), *(percent(mean([seed.metrics[metric] for seed in per_seed])) for metric in names)]
        row.append(spread(accuracies(evidence, name)))
        if at_point:
            per_seed = evidence.at_point(name)
            row += [percent(mean([seed.metrics[metric] for seed in per_seed])) for metric in ("recall", "false_positive_rate")]
        rows.append(row)
    note = SEEDS_NOTE
    if at_point:
        note += (
            f" Binary metrics are of the class {evidence.positive}. The last two columns are at a threshold set on validation "
            f"rows for a false positive rate of {100 * max_fpr:g} %."
        )
    means, seeds = {name: accuracy(evidence, name) for name in order}, {name: accuracies(evidence, name) for name in order}
    picture = Figure("accuracy", "Accuracy with its interval; rings are single seeds.", charts.dots(means, seeds, "accuracy"))
    return Section("Scores", [note, picture, Table(head, rows)])


def ranked(evidence: Evidence) -> list[str]:
    """Candidates by mean accuracy; the best is first."""
    return sorted(evidence.results, key=lambda name: -(accuracy(evidence, name).value or 0))


def accuracy(evidence: Evidence, name: str) -> Estimate:
    """Accuracy of a candidate, mean over its seeds."""
    return mean([seed.metrics["accuracy"] for seed in evidence.scores(name)])


def accuracies(evidence: Evidence, name: str) -> list[float]:
    """Accuracy of each seed of a candidate."""
    return [seed.metrics["accuracy"].value or 0.0 for seed in evidence.scores(name)]


def differences(evidence: Evidence, pairs: Mapping[tuple[str, str], Difference], reference: str = "") -> Section:
    """Accuracy of each model minus that of each other model, or minus that of the reference if there is one."""
    order = ranked(evidence)
    text = (
        "Accuracy of the row's model minus that of the column's, in points, on the same rows. A star marks significant "
        "differences: p below 0.05 in a paired permutation test over rows, adjusted for all pairs by the false discovery rate. "
        "The test covers these runs on other rows; for the effect of other seeds, see the standard deviations above."
    )
    if reference:
        rows = []
        for name in order:
            if name != reference:
                pair = pairs[name, reference]
                rows.append([name, percent(pair.difference), f"{pair.p:.3f}", "*" if pair.significant else ""])
        return Section("Differences", [text, Table(["model", f"minus {reference}", "p", ""], rows)])
    head = ["", *order]
    cells = [[_difference(pairs, one, other) for other in order] for one in order]
    return Section("Differences", [text, Table(head, [[name, *row] for name, row in zip(order, cells, strict=True)])])


def _difference(pairs: Mapping[tuple[str, str], Difference], one: str, other: str) -> str:
    if one == other:
        return ""
    pair = pairs[one, other]
    return f"{100 * (pair.difference.value or 0):+.2f}{'*' if pair.significant else ''}"


def details(evidence: Evidence) -> list[Section]:
    """Curves, confusion matrices and slices."""
    sections = []
    order, y, classes = ranked(evidence), evidence.y, evidence.classes
    if evidence.positive is not None and len(np.unique(y)) == len(classes):
        positive = classes.index(evidence.positive)
        margins = {name: seeds[0][:, positive] - seeds[0][:, 1 - positive] for name, seeds in evidence.logits.items()}
        curves = charts.ranking_curves(y == positive, {name: margins[name] for name in order}, evidence.positive)
        about = "ROC and precision-recall curves of each model's first seed; the false positive rate is on a logarithmic scale."
        sections.append(Section("Curves", [Figure("curves", about, curves)]))
    matrices = {name: np.sum([seed.confusion for seed in evidence.scores(name)], axis=0) for name in order}
    picture = charts.confusions(matrices, classes)
    per_class = [
        [
            name,
            of,
            *(f"{100 * np.mean([getattr(s.per_class[of], metric) for s in evidence.scores(name)]):.2f}" for metric in _PER_CLASS),
        ]
        for name in order
        for of in classes
    ]
    sections.append(
        Section(
            "Classes",
            [
                Figure("confusion", "Confusion matrices, summed over seeds; each row shows shares of its class.", picture),
                Table(["model", "class", *_PER_CLASS], per_class),
            ],
        )
    )
    blocks: list[Block] = ["Accuracy in percent, mean over seeds. Slices of fewer than 30 rows are omitted."]
    right = {name: seeds.mean(axis=0) for name, seeds in evidence.right().items()}
    for of, masks in slices(evidence.rows).items():
        rows = [
            [value, str(int(mask.sum())), *(f"{100 * right[name][mask].mean():.1f}" for name in order)]
            for value, mask in masks.items()
        ]
        blocks.append(Table([of, "rows", *order], rows))
    if len(blocks) > 1:
        sections.append(Section("Slices", blocks))
    return sections


_PER_CLASS = ("precision", "recall", "f1")


def leakage(evidence: Evidence, audit: Audit) -> Section:
    """Rows that may have leaked, and the accuracy without them."""
    y, classes = evidence.y, evidence.classes
    flagged = [
        [
            name,
            str(int((y == index).sum())),
            *(f"{mask[y == index].sum()} ({100 * mask[y == index].mean():.1f} %)" for mask in (audit.near, audit.sibling)),
        ]
        for index, name in enumerate(classes)
        if (y == index).any()
    ]
    rows = []
    for name in ranked(evidence):
        masks = [np.ones(len(y), dtype=bool), ~audit.near, ~(audit.near | audit.sibling)]
        rows.append([name, *(percent(_accuracy_of(evidence.logits[name], y, mask)) for mask in masks)])
    text = (
        "A scored row is a near-duplicate if it shares most of its word triples with a training row, ignoring case and "
        "punctuation. It has a sibling if a training row is more similar to it than a cosine of "
        f"{audit.similarity:.2f} between TF-IDF vectors of words; 99 % of the scored texts of the class {audit.plain} are less "
        "similar than that to every training text of their class. Texts generated from one prompt or original are usually "
        "siblings. Many siblings in a class mean that its scored texts repeat its training texts. The last column is the "
        "accuracy without these rows."
    )
    return Section(
        "Leakage audit",
        [
            text,
            Table(["class", "scored rows", "near-duplicate in training", "sibling in training"], flagged),
            Table(["model", "accuracy on all rows", "without near-duplicates", "also without siblings"], rows),
        ],
    )


def negative_control(control: Result) -> str:
    """The result of the run with random labels."""
    if control.outcome == "failed":
        return f"The negative control failed: {control.error}"
    auc = control.scores[CONTROL].metrics["roc_auc"]
    if auc.value is None or auc.low is None or auc.high is None:
        return "There is no negative control: too few of the scored rows are of one class."
    ok = auc.low <= 0.5 <= auc.high
    verdict = "includes" if ok else "excludes"
    advice = "" if ok else " One in twenty such intervals does so by chance, but look for a leak."
    return (
        f"Negative control: the TF-IDF baseline, trained on rows of one class with random labels, has an ROC AUC of {auc}; "
        f"the interval {verdict} the chance level of 0.5.{advice}"
    )


def _accuracy_of(logits: Sequence[Floats], y: NDArray[np.int64], mask: NDArray[np.bool_]) -> Estimate:
    if len(np.unique(y[mask])) < 2:
        return Estimate(None, None, None)
    return mean([metrics.accuracy(y[mask], seed[mask]) for seed in logits])


def shared_findings(comparison: Comparison) -> list[str]:
    """Findings at the start of every report: the rows, the leakage audit, and the limits of the results."""
    source = comparison.source
    short = [
        f"Trained on {len(source.train)} rows, validated on {len(source.validation)} and scored on {len(source.scored)} "
        "held-out rows."
    ]
    near, sibling = comparison.audit.near, comparison.audit.sibling
    short.append(
        f"Of the scored rows, {100 * near.mean():.1f} % have a near-duplicate in training and another "
        f"{100 * sibling.mean():.1f} % have a sibling; the leakage audit below reports accuracy without them."
    )
    short.append(negative_control(comparison.control))
    if failed := sum(result.outcome == "failed" for result in comparison.results):
        short.append(f"Failed runs: {failed}; see below.")
    short.append(
        "These results apply to texts like these. A detector trained on one generator can miss nearly all fakes of another."
    )
    return short


def speed(evidence: Evidence, name: str) -> float:
    """Reviews per second of a candidate, mean over seeds."""
    return float(np.mean([result.cost.reviews_per_second for result in evidence.results[name] if result.cost]))


def costs(evidence: Evidence) -> Table:
    """Time, memory, size and speed of every candidate."""
    rows = []
    for name in ranked(evidence):
        per_seed = [result.cost for result in evidence.results[name] if result.cost]
        gpu = [cost.gpu_memory_mib for cost in per_seed if cost.gpu_memory_mib is not None]
        memory = [cost.peak_memory_mib for cost in per_seed if cost.peak_memory_mib is not None]
        rows.append(
            [
                name,
                per_seed[0].device,
                f"{max(cost.seconds for cost in per_seed):,.0f}",
                f"{max(memory):,.0f}" if memory else "",
                f"{max(gpu):,.0f}" if gpu else "",
                f"{per_seed[0].model_mib:,.1f}",
                f"{speed(evidence, name):,.0f}",
            ]
        )
    head = ["model", "device", "training (s)", "peak memory (MiB)", "GPU memory (MiB)", "weights (MiB)", "reviews/s"]
    return Table(head, rows)


def runs(results: Sequence[Result]) -> list[Section]:
    """Failed runs and warnings; empty if there are none."""
    failed = [
        f"{run.job.name}, seed {run.job.recipe.get('seed', '-')}: {run.error}" for run in results if run.outcome == "failed"
    ]
    notes = sorted({f"{run.job.name}: {note}" for run in results for note in run.notes})
    sections = [Section("Failed runs", ["Repeat the same call to retry them.", Items(failed)])] if failed else []
    return [*sections, *([Section("Warnings", [Items(notes)])] if notes else [])]
