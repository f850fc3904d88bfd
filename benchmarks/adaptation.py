"""Adapt models to a few texts of a generator that they never saw, and write docs/results/adaptation.

    python benchmarks/adaptation.py

Needs ../shared/data and the packages that benchmarks/weights.py names, and about half an hour on two cores. Trains the built-in model's
like on fewer rows, twice, each time without what three cells name, as benchmarks/generalization.py does; exports it with references; and
adapts it to texts of each cell that are not scored. The penalty is chosen on other texts than the published figures are of.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
from _candidates import CANDIDATES, CELLS, SCREENING, SELECTED, Cell
from _corpus import Row, load
from _generalization_page import MAX_FPR
from _results import RESULTS, describe, machine, write
from numpy.typing import NDArray
from train_default import make

from reviewguard import Limits, adaptation
from reviewguard.decision import Decision
from reviewguard.evaluation.tables import markdown_table
from reviewguard.fitted import Fitted
from reviewguard.references import FILE, Embedded, embed, from_file
from reviewguard.runtime.cpu import CpuScorer

SIZES: Final = (10, 30, 100)
#: What int8 changes does not matter here: all that is measured is measured on it.
ANY: Final = Limits(texts=1, flips=1, f1=1)
#: Of the examples; figures are means over them.
DRAWS: Final = 5
PENALTIES: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def measured(model: Fitted, cells: dict[str, Cell], rows: list[Row]) -> dict[str, Any]:
    """By cell: figures before, and by penalty and number of examples those after, on both parts."""
    references, decision = from_file(model.read(FILE)), model.manifest.decision
    found: dict[str, Any] = {}
    for name, cell in cells.items():
        own, other = (seen(model, cell.scored(rows, part)) for part in ("published", "selection"))
        fakes = np.flatnonzero(other[1])
        found[name] = {"before": figures(*own, None, decision), "after": {}}
        for size in SIZES:
            for penalty in PENALTIES:
                by_draw: dict[str, list[dict[str, float]]] = {"published": [], "selection": []}
                for draw in range(DRAWS):
                    chosen = np.random.default_rng(draw).permutation(fakes)[:size]
                    examples = other[0].rows(chosen)
                    correction, _ = adaptation.fit(examples, np.ones(len(chosen), bool), references, decision, penalty)
                    rest = np.setdiff1d(np.arange(len(other[1])), chosen)
                    for part, texts in (("published", own), ("selection", (other[0].rows(rest), other[1][rest]))):
                        by_draw[part].append(figures(*texts, correction, decision))
                found[name]["after"].setdefault(f"{penalty:g}", {})[str(size)] = {
                    part: {key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}
                    for part, drawn in by_draw.items()
                }
        print(name, found[name]["before"], found[name]["after"][f"{adaptation.PENALTY:g}"], flush=True)
    return found


def seen(model: Fitted, scored: list[Row]) -> tuple[Embedded, NDArray[np.bool_]]:
    """Rows as the correction sees them, and which are fakes."""
    assert isinstance(model.scorer, CpuScorer)
    return embed(model, model.scorer, [row.text for row in scored]), np.array([row.label == "fake" for row in scored])


def figures(
    texts: Embedded, fake: NDArray[np.bool_], correction: adaptation.Correction | None, decision: Decision
) -> dict[str, float]:
    """Recall at the model's thresholds, the false positive rate there, and recall where 2 % of these human texts are flagged."""
    point = decision.point
    assert point is not None
    odds = texts.odds if correction is None else texts.odds + correction.of(texts.embeddings)
    margin = odds - point.thresholds(texts.words)
    return {
        "recall": float((margin[fake] >= 0).mean()),
        "false positive rate": float((margin[~fake] >= 0).mean()),
        "recall at 2 %": float((odds[fake] > np.quantile(odds[~fake], 1 - MAX_FPR)).mean()),
    }


def chosen_penalty(cells: dict[str, Any]) -> dict[str, float]:
    """By penalty, the mean recall at 2 % over cells and numbers of examples, on texts that are not published."""
    return {
        f"{penalty:g}": float(
            np.mean(
                [
                    cell["after"][f"{penalty:g}"][str(size)]["selection"]["recall at 2 %"]
                    for cell in cells.values()
                    for size in SIZES
                ]
            )
        )
        for penalty in PENALTIES
    }


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    cells, penalty = found["cells"], f"{adaptation.PENALTY:g}"

    def lines(measure: str) -> list[list[str]]:
        return [
            [
                name,
                f"{100 * cell['before'][measure]:.1f}",
                *(f"{100 * cell['after'][penalty][str(size)]['published'][measure]:.1f}" for size in SIZES),
            ]
            for name, cell in cells.items()
        ]

    def table(measure: str) -> str:
        heads = ["left out", "before", *(f"{size} examples" for size in SIZES)]
        rows = lines(measure)
        mean = ["mean", *(f"{np.mean([float(row[column]) for row in rows]):.1f}" for column in range(1, len(heads)))]
        return markdown_table([heads, *rows, mean])

    tried = markdown_table(
        [["penalty", "mean recall at 2 %"], *([name, f"{100 * value:.1f}"] for name, value in found["penalties"].items())]
    )
    return f"""# Adaptation to a few examples

Recall of generators and domains that were left out of training, before and after `Classifier.adapt` was given a few fakes of them; in percent, means
of {DRAWS} draws of the examples. The models are the built-in model's like, trained on fewer rows, in int8 ([which](generalization.md)). Neither examples nor references are
among the texts that are scored.

## Recall at an unchanged false positive rate

Read where {100 * MAX_FPR:g} % of the human texts of the same domain are flagged, before and after.

{table("recall at 2 %")}

![Recall at 2 % false positives by number of examples](adaptation.png)

## Recall at the model's own thresholds

{table("recall")}

The false positive rate there, on human texts of the same domain. The references that hold it come from the domains that were trained on:

{table("false positive rate")}

## The penalty

Of L2 on the weights of the correction. {penalty} is the default of the library; chosen on texts that the tables above are not of.

{tried}

{describe(found["machine"])}

Made by `python benchmarks/adaptation.py`; figures in [adaptation.json](adaptation.json).
"""


def draw_recall(cells: dict[str, Any]) -> None:
    """A line for each cell."""
    penalty = f"{adaptation.PENALTY:g}"
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (name, cell), marker in zip(cells.items(), "osv^DP", strict=True):
        after = [cell["after"][penalty][str(size)]["published"]["recall at 2 %"] for size in SIZES]
        values = [100 * value for value in (cell["before"]["recall at 2 %"], *after)]
        axes.plot(range(len(values)), values, marker=marker, label=name, alpha=0.8)
    axes.set_xticks(range(len(SIZES) + 1), ["none", *map(str, SIZES)])
    axes.set(xlabel="examples", ylabel=f"recall at {100 * MAX_FPR:g} % false positives, %", ylim=(0, 101))
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(fontsize="small")
    figure.savefig(RESULTS / "adaptation.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Train, adapt, measure, write."""
    rows, cells = load(), {}
    for names in SCREENING.values():
        own = {name: CELLS[name] for name in names}
        left = [row for row in rows if not any(cell.leaves_out(row) for cell in own.values())]
        with tempfile.TemporaryDirectory() as scratch:
            model, _ = make(CANDIDATES[SELECTED], left, Path(scratch) / "export", ANY)
            cells |= measured(model._trained(), own, rows)
    found = {"machine": machine(), "cells": cells, "penalties": chosen_penalty(cells)}
    draw_recall(cells)
    write("adaptation", found, page(found))


if __name__ == "__main__":
    main()
