"""The report of an A/B test, from the log of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from reviewguard.data.tables import columns_of
from reviewguard.errors import DataError, nearest
from reviewguard.evaluation.sequential import BURN_IN, Difference, f1_influence, paired_difference, unpaired_difference
from reviewguard.experiments import charts
from reviewguard.experiments.page import Block, Figure, Page, Section, Table
from reviewguard.inference.decision_log import Entry, hashed, read
from reviewguard.training.plan import default_positive

#: Number of texts that a report lists.
_LISTED: Final = 20
_SHOWN: Final = 160


@dataclass(frozen=True)
class Arms:
    """The entries that are compared, in the order of time.

    Attributes:
        paired: Whether both arms predicted each text (shadow).
        champion: Entries of the champion.
        challenger: Entries of the challenger; if paired, in the same order of keys.
        left_out: Number of entries that are not compared, by the reason.
    """

    paired: bool
    champion: list[Entry]
    challenger: list[Entry]
    left_out: Mapping[str, int]


def ab(
    log: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    positive: str = "",
    command: str = "reviewguard ab",
) -> Page:
    """Compare the two models of an A/B test.

    Args:
        log: Folder of the log, as given to `reviewguard serve --log`.
        labels: Table with the columns "key" and "label": true labels of some keys, which may come in later. None: no labels.
        positive: The positive class. Empty: chosen as in training.
        command: The command that the report names.

    Returns:
        A report, to be saved as HTML and Markdown.

    Raises:
        DataError: If the log has no entries of two arms, or the labels do not fit.
    """
    arms = arms_of(read(Path(log)), str(log))
    classes = sorted(arms.champion[0].scores)
    if positive and positive not in classes:
        raise DataError(f"{positive!r} is not a class of the log; {nearest(positive, classes)}")
    target = positive or default_positive(classes)
    truth = {} if labels is None else _labels(labels, classes)
    outcomes = differences(arms, target, truth)
    return _page(arms, target, outcomes, len(truth), command)


def arms_of(entries: Sequence[Entry], source: str) -> Arms:
    """Select what can be compared: the first entry of each key, by the last model of each arm.

    Raises:
        DataError: If there are no entries of two arms, or of a shadow and a split.
    """
    tested = [entry for entry in entries if entry.shadow or entry.share]
    kinds = {entry.shadow for entry in tested}
    if {entry.arm for entry in tested} != {"champion", "challenger"}:
        raise DataError(f"{source} has no decisions of two models; serve with --challenger and --log")
    if len(kinds) > 1:
        raise DataError(f"{source} has decisions of a split and of a shadow; use a folder of its own for each test")
    last = {entry.arm: entry.model for entry in tested}
    current = [entry for entry in tested if entry.model == last[entry.arm]]
    predicted = [entry for entry in current if entry.label is not None]
    first: dict[tuple[str, str], Entry] = {}
    for entry in predicted:
        first.setdefault((entry.arm, entry.key), entry)
    left_out = {
        "by earlier models": len(tested) - len(current),
        "of empty texts": len(current) - len(predicted),
        "of keys that came again": len(predicted) - len(first),
    }
    champion, challenger = ([one for (arm, _), one in first.items() if arm == name] for name in ("champion", "challenger"))
    paired = kinds == {True}
    if paired:
        pairs = [(one, first["challenger", one.key]) for one in champion if ("challenger", one.key) in first]
        left_out["that the shadow missed"] = len(champion) + len(challenger) - 2 * len(pairs)
        champion, challenger = [one for one, _ in pairs], [other for _, other in pairs]
    return Arms(paired, champion, challenger, {reason: count for reason, count in left_out.items() if count})


def differences(arms: Arms, positive: str, truth: Mapping[str, str]) -> dict[str, Difference | None]:
    """Differences between the arms, challenger less champion, by their names."""
    both = [*arms.champion, *arms.challenger] if not arms.paired else arms.champion
    order = np.argsort([entry.time for entry in both], kind="stable")
    is_challenger = np.arange(len(both)) >= len(arms.champion)
    share = np.array([entry.share for entry in both])
    labelled = np.array([entry.key in truth for entry in both], dtype=bool)
    is_positive = np.array([truth.get(entry.key) == positive for entry in both], dtype=bool)

    def flagged(entries: Sequence[Entry]) -> NDArray[np.bool_]:
        return np.array([entry.label == positive for entry in entries], dtype=bool)

    def compared(
        select: NDArray[np.bool_], outcome: NDArray[np.floating], other: NDArray[np.floating] | None = None
    ) -> Difference | None:
        rows = order[select[order]]
        if other is not None:
            return paired_difference(outcome[rows], other[rows])
        return unpaired_difference(outcome[rows], is_challenger[rows], share[rows])

    every = np.ones(len(both), dtype=bool)
    first, second = flagged(both), flagged(arms.challenger) if arms.paired else None
    found = {
        f"share classified as {positive}": compared(every, first.astype(float), None if second is None else second.astype(float))
    }
    if truth:
        for name, select, right in (
            ("accuracy", labelled, is_positive),
            ("recall", labelled & is_positive, every),
            ("false positive rate", labelled & ~is_positive, every),
        ):
            values = [None if one is None else (one == right).astype(float) for one in (first, second)]
            assert values[0] is not None
            found[name] = compared(select, values[0], values[1])
        found["F1"] = compared(labelled, *_f1(arms, labelled, is_positive, first, second, is_challenger))
    return found


def _f1(
    arms: Arms,
    labelled: NDArray[np.bool_],
    is_positive: NDArray[np.bool_],
    first: NDArray[np.bool_],
    second: NDArray[np.bool_] | None,
    is_challenger: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Values whose means over the labelled rows of an arm are its F1."""

    def influence(rows: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
        values = np.zeros(len(labelled))
        if (is_positive[rows] | predicted[rows]).any():
            values[rows] = f1_influence(is_positive[rows], predicted[rows])
        return values

    if second is not None:
        return influence(labelled, first), influence(labelled, second)
    return influence(labelled & is_challenger, first) + influence(labelled & ~is_challenger, first), None


def _labels(source: str | os.PathLike[str], classes: Sequence[str]) -> dict[str, str]:
    """True labels by the hash of their keys."""
    columns, name = columns_of(source)
    if missing := {"key", "label"} - columns.keys():
        raise DataError(f"{name} has no column {min(missing)!r}; labels need the columns key and label")
    labels = {hashed(str(key)): str(label) for key, label in zip(columns["key"], columns["label"], strict=True)}
    if unknown := set(labels.values()) - set(classes):
        raise DataError(
            f"{name} has the label {min(unknown)!r}, which is not a class of the log; {nearest(min(unknown), classes)}"
        )
    return labels


def _page(arms: Arms, positive: str, found: Mapping[str, Difference | None], labels: int, command: str) -> Page:
    kind = "Both models predicted every text (shadow)." if arms.paired else "Each key was assigned to one model (A/B test)."
    n = len(arms.champion), len(arms.challenger)
    short = [f"{kind} Compared: {n[0]} decisions of the champion and {n[1]} of the challenger."]
    short += [_finding(name, one) for name, one in found.items()]
    if not labels:
        short.append("No labels were given, so nothing is said about which model is right.")
    blocks: list[Block] = [
        "Challenger less champion, in points. The bounds are a confidence sequence of 95 % (Waudby-Smith et al. 2021): they "
        "hold however often the report is made, so a test may be stopped as soon as they exclude 0.",
        Table(["difference", "estimate", "bounds", "texts"], [_row(name, one) for name, one in found.items()]),
    ]
    paths = {name: one.path for name, one in found.items() if one is not None}
    if paths:
        blocks.append(Figure("differences", "Differences and their bounds over time.", charts.sequences(paths)))
    sections = [Section("Differences", blocks), Section("Decisions", [_decisions(arms)])]
    if arms.paired:
        sections.append(_disagreements(arms, positive))
    if arms.left_out:
        rows = [[f"Decisions {reason}", str(count)] for reason, count in arms.left_out.items()]
        sections.append(Section("Not compared", [Table(["", "decisions"], rows)]))
    return Page(title="A/B test", short=short, sections=sections, about=[f"Made by `{command}`."])


def _finding(name: str, one: Difference | None) -> str:
    if one is None:
        needed = f"it takes at least {BURN_IN} texts, and enough on which the outcomes differ"
        return f"{name[0].upper() + name[1:]}: undecided; {needed}."
    verdict = "differs" if one.is_significant else "does not differ significantly"
    return f"{name[0].upper() + name[1:]} {verdict}: {100 * one.value:+.2f} points [{100 * one.low:+.2f}, {100 * one.high:+.2f}]."


def _row(name: str, one: Difference | None) -> list[str]:
    if one is None:
        return [name, "", "", ""]
    return [name, f"{100 * one.value:+.2f}", f"[{100 * one.low:+.2f}, {100 * one.high:+.2f}]", str(one.n)]


def _decisions(arms: Arms) -> Table:
    names = sorted({str(entry.decision) for entry in (*arms.champion, *arms.challenger)})
    rows = []
    for name, entries in (("champion", arms.champion), ("challenger", arms.challenger)):
        shares = [sum(entry.decision == decision for entry in entries) / len(entries) for decision in names]
        p50, p99 = np.quantile([1000 * entry.seconds for entry in entries], [0.5, 0.99])
        rows.append([name, *(f"{100 * share:.1f} %" for share in shares), f"{p50:.1f}", f"{p99:.1f}"])
    return Table(["model", *names, "median latency, ms", "99th percentile, ms"], rows)


def _disagreements(arms: Arms, positive: str) -> Section:
    pairs = list(zip(arms.champion, arms.challenger, strict=True))
    agreed = sum(one.label == other.label for one, other in pairs)
    gaps = sorted(pairs, key=lambda pair: -abs(pair[0].scores[positive] - pair[1].scores[positive]))[:_LISTED]
    rows = [
        [f"{one.scores[positive]:.3f}", f"{other.scores[positive]:.3f}", one.text[:_SHOWN] if one.text else f"key {one.key[:16]}"]
        for one, other in gaps
    ]
    interval = binomtest(agreed, len(pairs)).proportion_ci(method="wilson")
    agreement = f"{100 * agreed / len(pairs):.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    return Section(
        "Disagreements",
        [
            f"The models give {agreed} of {len(pairs)} texts the same label ({agreement}). The texts on which their "
            f"probabilities of {positive} differ most:",
            Table(["champion", "challenger", "text"], rows),
        ],
    )
