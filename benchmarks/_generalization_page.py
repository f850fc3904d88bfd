"""The page of benchmarks/generalization.py: tables and a chart of recall on left-out generators and domains."""

from __future__ import annotations

from typing import Any, Final

import matplotlib.pyplot as plt
import msgspec
import numpy as np
from _candidates import CANDIDATES, CELLS, SCREENING
from _results import RESULTS, describe

from reviewguard.evaluation.tables import markdown_table

MAX_FPR: Final = 0.02
#: Share of human texts that may need review.
REVIEWED: Final = 0.25


def page(runs: dict[str, Any]) -> str:
    """Render the results as Markdown, and draw the chart."""
    screened = {name: _cells(runs, name, SCREENING) for name in CANDIDATES}
    full = {name: _cells(runs, name, CELLS) for name in CANDIDATES}
    parts = ["# Generalisation to unseen generators", _INTRODUCTION]
    for title, found, folds, about in (
        ("Screening", screened, SCREENING, _SCREENED),
        ("All eleven cells", full, CELLS, "One training run for each cell, without its generators or domains."),
    ):
        if found := {name: cells for name, cells in found.items() if cells}:
            names = [cell for fold in folds for cell in SCREENING.get(fold, (fold,))]
            parts += [
                f"## {title}",
                about,
                _summary(found),
                "Recall at a false positive rate of 2 % by cell, in percent:",
                _by_cell(found, names),
            ]
    draw_recall(screened)
    used = list(runs.values())
    parts += [
        "![Recall of each candidate at a false positive rate of 2 %, by cell](generalization.png)",
        "## Candidates",
        _settings([name for name in CANDIDATES if screened[name] or full[name]]),
        f"{len(used)} training runs took {sum(run['seconds'] for run in used) / 3600:.1f} hours, two in parallel with one thread each.",
        " ".join(dict.fromkeys(describe(one["machine"]) for one in used)),
        "Made by `python benchmarks/generalization.py`; data in [generalization.json](generalization.json).",
    ]
    return "\n\n".join(parts)


_INTRODUCTION: Final = f"""Candidate recipes for the built-in model, scored on generators and domains that are left out of training. A cell
names the left-out generators or domains. Each model is trained without a cell's rows and scored on its fakes and on held-out human texts of the
same domain. Recall is at a false positive rate of {100 * MAX_FPR:g} % on these human texts. "Not flagged" is the share of fakes that would not need review if
{100 * REVIEWED:g} % of the human texts did. The recipe was selected by mean and worst recall."""
_SCREENED: Final = """Two training runs for each candidate, each without three cells together, so recall is lower than with one cell left out
at a time. One seed: differences under three points are noise."""


def _cells(runs: dict[str, Any], name: str, folds: Any) -> dict[str, list[dict[str, Any]]]:
    """Measures of a candidate by cell, one per seed; empty unless every fold was run."""
    found: dict[str, list[dict[str, Any]]] = {}
    settings = msgspec.to_builtins(CANDIDATES[name])
    own = {key.split(" / ")[1]: [] for key in runs}
    for key, one in runs.items():
        candidate, fold, _ = key.split(" / ")
        if candidate == name and one["candidate"] == settings:
            own[fold].append(one)
    if not all(own.get(fold) for fold in folds):
        return {}
    for fold in folds:
        for one in own[fold]:
            for cell, measured in one["selection"].items():
                found.setdefault(cell, []).append(measured)
    return found


def _mean(cells: dict[str, list[dict[str, Any]]], measure: str) -> list[float]:
    """Mean of each cell over seeds, in percent."""
    return [100 * float(np.mean([one[measure] for one in own])) for own in cells.values()]


def _summary(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    at = f"recall at {100 * MAX_FPR:g} %"
    heads = [
        "candidate",
        "mean recall",
        "worst recall",
        "recall at 1 %",
        "recall at 5 %",
        "mean AUC",
        "not flagged",
        "false positive rate at one threshold",
    ]
    lines = []
    for name, cells in sorted(found.items(), key=lambda item: -np.mean(_mean(item[1], at))):
        wrong = _mean(cells, "false positive rate at the threshold")
        lines.append(
            [
                name,
                f"{np.mean(_mean(cells, at)):.1f}",
                f"{min(_mean(cells, at)):.1f}",
                *(
                    f"{np.mean(_mean(cells, measure)):.1f}"
                    for measure in ("recall at 1 %", "recall at 5 %", "auc", "not flagged")
                ),
                f"{min(wrong):.1f} to {max(wrong):.1f}",
            ]
        )
    return markdown_table([heads, *lines])


def _by_cell(found: dict[str, dict[str, list[dict[str, Any]]]], names: list[str]) -> str:
    at = f"recall at {100 * MAX_FPR:g} %"
    lines = [
        [name, *(f"{value:.1f}" for value in _mean({cell: cells[cell] for cell in names}, at))] for name, cells in found.items()
    ]
    return markdown_table([["candidate", *names], *lines])


def _settings(names: list[str]) -> str:
    heads = ["candidate", "encoder", "domains", "rows", "subclasses", "epochs", "learning rate", "tokens", "n-grams", "other"]
    lines = []
    for name in names:
        one = CANDIDATES[name]
        encoder = one.encoder.name + (f", first {one.encoder.layers} layers" if one.encoder.layers else "")
        other = [f"{one.normalization} normalisation"]
        other += [f"{100 * one.augment:g} % augmented"] if one.augment else []
        other += [f"label smoothing {one.smoothing:g}"] if one.smoothing else []
        lines.append(
            [
                name,
                encoder + (", English vocabulary" if one.encoder.least else ""),
                one.mix,
                f"{one.rows:,}" + (f" and {one.products:,} of products" if one.products else ""),
                one.kinds,
                str(one.epochs),
                f"{one.learning_rate:g}",
                str(one.max_length),
                f"{one.ngrams:,}" if one.ngrams else "none",
                ", ".join(other),
            ]
        )
    return markdown_table([heads, *lines])


def draw_recall(screened: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Draw a row for each candidate and a mark for each cell."""
    found = {name: cells for name, cells in screened.items() if cells}
    names = [cell for fold in SCREENING.values() for cell in fold]
    figure, axes = plt.subplots(figsize=(7.2, 1.2 + 0.34 * len(found)), layout="constrained")
    order = sorted(found, key=lambda name: np.mean(_mean(found[name], f"recall at {100 * MAX_FPR:g} %")))
    for cell, marker in zip(names, "osv^DP", strict=True):
        values = [_mean({cell: found[name][cell]}, f"recall at {100 * MAX_FPR:g} %")[0] for name in order]
        axes.plot(values, range(len(order)), marker, linestyle="none", label=cell, alpha=0.8)
    axes.set_yticks(range(len(order)), order)
    axes.set(xlabel=f"recall at a false positive rate of {100 * MAX_FPR:g} %, in percent", xlim=(0, 101))
    axes.grid(axis="x", linewidth=0.4)
    axes.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.28 / max(len(found), 1) - 0.1))
    figure.savefig(RESULTS / "generalization.png", dpi=150)
    plt.close(figure)
