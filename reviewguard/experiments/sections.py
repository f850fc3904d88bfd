"""Sections that reports share."""

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
    "Each figure is the mean over seeds, in percent; the interval is that of a bootstrap over the scored rows, its ends "
    "averaged over seeds. What seeds change stands beside it, as a standard deviation in points."
)


def scores(evidence: Evidence, max_fpr: float) -> Section:
    """Every metric of every candidate, the most accurate first."""
    names = [name for name in next(iter(evidence.results.values()))[0].scores[evidence.name].metrics if name != "specificity"]
    order = ranked(evidence)
    at_point = evidence.positive is not None
    head = ["model", "seeds", *names, "accuracy between seeds"]
    head += [f"recall at {100 * max_fpr:g} %", "false positives there"] if at_point else []
    rows = []
    for name in order:
        own = evidence.scores(name)
        row = [name, str(len(own)), *(percent(mean([one.metrics[metric] for one in own])) for metric in names)]
        row.append(spread(accuracies(evidence, name)))
        if at_point:
            there = evidence.at_point(name)
            row += [percent(mean([one.metrics[metric] for one in there])) for metric in ("recall", "false_positive_rate")]
        rows.append(row)
    note = SEEDS_NOTE
    if at_point:
        note += (
            f" Metrics are of the class {evidence.positive}. The last two columns are at a threshold that was set on "
            f"validation rows for {100 * max_fpr:g} % false positives."
        )
    means, seeds = {name: accuracy(evidence, name) for name in order}, {name: accuracies(evidence, name) for name in order}
    picture = Figure("accuracy", "Accuracy with its interval; rings are seeds.", charts.dots(means, seeds, "accuracy"))
    return Section("Scores", [note, picture, Table(head, rows)])


def ranked(evidence: Evidence) -> list[str]:
    """Contestants by mean accuracy, the best first."""
    return sorted(evidence.results, key=lambda name: -(accuracy(evidence, name).value or 0))


def accuracy(evidence: Evidence, name: str) -> Estimate:
    """Of a candidate, over its seeds."""
    return mean([one.metrics["accuracy"] for one in evidence.scores(name)])


def accuracies(evidence: Evidence, name: str) -> list[float]:
    """Of a candidate, each seed's."""
    return [one.metrics["accuracy"].value or 0.0 for one in evidence.scores(name)]


def differences(evidence: Evidence, pairs: Mapping[tuple[str, str], Difference], reference: str = "") -> Section:
    """Accuracy of the row's model less that of the column's; with a reference, less that of the reference only."""
    order = ranked(evidence)
    text = (
        "Accuracy of the row's model less that of the column's, in points, on the same rows. A star marks differences that "
        "are more than chance: a paired permutation test over rows, p below 0.05 after adjusting for all pairs by the false "
        "discovery rate. It is about these runs on other rows; how much other seeds would change is in the column of seeds "
        "above."
    )
    if reference:
        rows = []
        for name in order:
            if name != reference:
                of = pairs[name, reference]
                rows.append([name, percent(of.difference), f"{of.p:.3f}", "*" if of.significant else ""])
        return Section("Differences", [text, Table(["model", f"less {reference}", "p", ""], rows)])
    head = ["", *order]
    cells = [[_difference(pairs, one, other) for other in order] for one in order]
    return Section("Differences", [text, Table(head, [[name, *row] for name, row in zip(order, cells, strict=True)])])


def _difference(pairs: Mapping[tuple[str, str], Difference], one: str, other: str) -> str:
    if one == other:
        return ""
    of = pairs[one, other]
    return f"{100 * (of.difference.value or 0):+.2f}{'*' if of.significant else ''}"


def details(evidence: Evidence) -> list[Section]:
    """Curves, confusion matrices, and parts of the rows."""
    sections = []
    order, y, classes = ranked(evidence), evidence.y, evidence.classes
    if evidence.positive is not None and len(np.unique(y)) == len(classes):
        positive = classes.index(evidence.positive)
        margins = {name: one[0][:, positive] - one[0][:, 1 - positive] for name, one in evidence.logits.items()}
        curves = charts.ranking_curves(y == positive, {name: margins[name] for name in order}, evidence.positive)
        about = "ROC and precision-recall curves of each model's first seed; false positives on a logarithmic scale."
        sections.append(Section("Curves", [Figure("curves", about, curves)]))
    matrices = {name: np.sum([one.confusion for one in evidence.scores(name)], axis=0) for name in order}
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
                Figure("confusion", "Confusion matrices, each row as shares of its class, all seeds together.", picture),
                Table(["model", "class", *_PER_CLASS], per_class),
            ],
        )
    )
    blocks: list[Block] = ["Accuracy in percent, mean over seeds. Slices of fewer than 30 rows are left out."]
    right = {name: one.mean(axis=0) for name, one in evidence.right().items()}
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


def leakage(evidence: Evidence, found: Audit) -> Section:
    """What may have leaked, and the scores without it."""
    y, classes = evidence.y, evidence.classes
    flagged = [
        [
            name,
            str(int((y == index).sum())),
            *(f"{mask[y == index].sum()} ({100 * mask[y == index].mean():.1f} %)" for mask in (found.near, found.sibling)),
        ]
        for index, name in enumerate(classes)
        if (y == index).any()
    ]
    rows = []
    for name in ranked(evidence):
        kept = [np.ones(len(y), dtype=bool), ~found.near, ~(found.near | found.sibling)]
        rows.append([name, *(percent(_accuracy_of(evidence.logits[name], y, mask)) for mask in kept)])
    text = (
        "A scored row is a near-duplicate if a training row shares most of its word triples, but for case and punctuation. It "
        "counts as having a sibling if some training row is more similar than the nearest one of 99 % of the texts of the "
        f"class {found.plain} among their own kind is (a cosine of {found.similarity:.2f} between TF-IDF vectors of words): "
        "texts that were generated from one prompt or original are. Many siblings in one class mean that its texts repeat "
        "each other, in training as in what is scored: the last column is the score where a model cannot lean on that."
    )
    return Section(
        "Leakage audit",
        [
            text,
            Table(["class", "scored rows", "near-duplicate in training", "sibling in training"], flagged),
            Table(["model", "accuracy on all", "without near-duplicates", "without siblings too"], rows),
        ],
    )


def negative_control(control: Result) -> str:
    """What came of labels drawn by lot."""
    if control.outcome == "failed":
        return f"The negative control failed: {control.error}"
    auc = control.scores[CONTROL].metrics["roc_auc"]
    if auc.value is None or auc.low is None or auc.high is None:
        return "There was no negative control: too few of the scored rows are of one class."
    ok = auc.low <= 0.5 <= auc.high
    verdict = "which includes the 0.5 of chance." if ok else "outside of chance: one in twenty such runs is, but look for a leak."
    return (
        f"Negative control: the TF-IDF model trained on rows of one class under labels drawn by lot has an ROC AUC of {auc}, "
        f"{verdict}"
    )


def _accuracy_of(logits: Sequence[Floats], y: NDArray[np.int64], mask: NDArray[np.bool_]) -> Estimate:
    if len(np.unique(y[mask])) < 2:
        return Estimate(None, None, None)
    return mean([metrics.accuracy(y[mask], one[mask]) for one in logits])


def shared_findings(comparison: Comparison) -> list[str]:
    """What every report says first: what was measured on, and how far it can be believed."""
    source = comparison.source
    short = [
        f"Trained on {len(source.train)} rows, chosen by {len(source.validation)}, scored on {len(source.scored)} that chose "
        "nothing."
    ]
    near, sibling = comparison.audit.near, comparison.audit.sibling
    short.append(
        f"Of the scored rows, {100 * near.mean():.1f} % have a near-duplicate in training and another "
        f"{100 * sibling.mean():.1f} % a sibling; the audit below shows the scores without them."
    )
    short.append(negative_control(comparison.control))
    if failed := sum(one.outcome == "failed" for one in comparison.results):
        short.append(f"{failed} runs failed; they are named below.")
    short.append(
        "All of this holds for texts like these. A detector that was trained on one generator can miss nearly all of "
        "another's fakes."
    )
    return short


def speed(evidence: Evidence, name: str) -> float:
    """Reviews a second of a candidate, mean over seeds."""
    return float(np.mean([result.cost.reviews_per_second for result in evidence.results[name] if result.cost]))


def costs(evidence: Evidence) -> Table:
    """Time, memory, size and speed of every candidate."""
    rows = []
    for name in ranked(evidence):
        of = [result.cost for result in evidence.results[name] if result.cost]
        gpu = [cost.gpu_memory_mib for cost in of if cost.gpu_memory_mib is not None]
        memory = [cost.peak_memory_mib for cost in of if cost.peak_memory_mib is not None]
        rows.append(
            [
                name,
                of[0].device,
                f"{max(cost.seconds for cost in of):,.0f}",
                f"{max(memory):,.0f}" if memory else "",
                f"{max(gpu):,.0f}" if gpu else "",
                f"{of[0].model_mib:,.1f}",
                f"{speed(evidence, name):,.0f}",
            ]
        )
    head = ["model", "device", "training, s", "peak memory, MiB", "on the GPU, MiB", "weights, MiB", "reviews a second"]
    return Table(head, rows)


def runs(results: Sequence[Result]) -> list[Section]:
    """What failed, and what was warned of; nothing where all is well."""
    failed = [
        f"{one.job.name}, seed {one.job.recipe.get('seed', '-')}: {one.error}" for one in results if one.outcome == "failed"
    ]
    notes = sorted({f"{one.job.name}: {note}" for one in results for note in one.notes})
    sections = [Section("Failed runs", ["They are tried again by the same call.", Items(failed)])] if failed else []
    return [*sections, *([Section("Warnings", [Items(notes)])] if notes else [])]
