"""Adapt models to a few texts of a left-out generator, and write docs/results/adaptation.

    python benchmarks/adaptation.py

Needs ../shared/data and the packages that benchmarks/weights.py names. Takes about half an hour on two cores. Trains the recipe of the
built-in model on fewer rows, twice, each time without three cells, as benchmarks/generalization.py does; exports the models with
references to build/adaptation, where a later run reuses them; and adapts them to texts of each cell that are not scored. References and
penalty are chosen on other texts than those of the published results.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
from _candidates import CANDIDATES, CELLS, SCREENING, SELECTED, Cell
from _corpus import Row, load
from _generalization_page import MAX_FPR
from _results import RESULTS, ROOT, describe, machine, write
from numpy.typing import NDArray
from train_builtin import make

from reviewguard import Classifier, Limits
from reviewguard.bundle.decision import Decision
from reviewguard.bundle.folder import is_bundle
from reviewguard.evaluation.tables import markdown_table
from reviewguard.inference import adaptation
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.references import FILE, Embedded, embed, from_file

SIZES: Final = (10, 30, 100)
#: No limits on the change by int8, since all measurements are in int8.
ANY: Final = Limits(texts=1, flips=1, f1=1)
#: Number of draws of the examples; results are means over them.
DRAWS: Final = 5
PENALTIES: Final = (1.0, 10.0, 100.0)
#: Number of human texts of the cell's domain that serve as references; none is scored.
OWN: Final = 100
#: References that keep the false positive rate: the model's, both, or the user's own.
REFERENCES: Final = ("the model's", "both", "own")
WORK: Final = ROOT / "build" / "adaptation"


def measured(model: TrainedModel, cells: dict[str, Cell], rows: list[Row]) -> dict[str, Any]:
    """Results by cell: before adaptation, and after it by references, penalty and number of examples, on both parts."""
    stored, decision = from_file(model.read(FILE)), model.manifest.decision
    results: dict[str, Any] = {}
    for name, cell in cells.items():
        published, selection = (seen(model, cell.scored(rows, part)) for part in ("published", "selection"))
        fakes, humans = np.flatnonzero(selection[1]), np.flatnonzero(~selection[1])
        after: dict[str, Any] = {}
        for which, penalty, size in itertools.product(REFERENCES, PENALTIES, SIZES):
            by_draw: dict[str, list[dict[str, float]]] = {"published": [], "selection": []}
            for draw in range(DRAWS):
                rng = np.random.default_rng(draw)
                examples, human_rows = rng.permutation(fakes)[:size], rng.permutation(humans)[:OWN]
                genuine = selection[0].rows(human_rows)
                references = {"the model's": stored, "both": stored.and_then(genuine), "own": genuine}[which]
                positive = np.ones(len(examples), bool)
                correction, _ = adaptation.fit(selection[0].rows(examples), positive, references, decision, penalty)
                by_draw["published"].append(figures(*published, correction, decision))
                rest = np.setdiff1d(np.arange(len(selection[1])), [*examples, *human_rows])
                if selection[1][rest].any() and not selection[1][rest].all():
                    by_draw["selection"].append(figures(selection[0].rows(rest), selection[1][rest], correction, decision))
            after.setdefault(which, {}).setdefault(f"{penalty:g}", {})[str(size)] = {
                part: {key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}
                for part, drawn in by_draw.items()
                if drawn
            }
        results[name] = {"before": figures(*published, None, decision), "after": after}
        print(name, results[name]["before"], {key: one[f"{adaptation.PENALTY:g}"] for key, one in after.items()}, flush=True)
    return results


def seen(model: TrainedModel, scored: list[Row]) -> tuple[Embedded, NDArray[np.bool_]]:
    """Embedded rows, and whether each is a fake."""
    assert isinstance(model.scorer, CpuScorer)
    return embed(model, model.scorer, [row.text for row in scored]), np.array([row.label == "fake" for row in scored])


def figures(
    texts: Embedded, fake: NDArray[np.bool_], correction: adaptation.Correction | None, decision: Decision
) -> dict[str, float]:
    """Recall and false positive rate at the model's thresholds, and recall at a false positive rate of 2 % on these texts."""
    point = decision.operating_point
    assert point is not None
    odds = texts.odds if correction is None else texts.odds + correction.of(texts.embeddings)
    margin = odds - point.thresholds(texts.words)
    return {
        "recall": float((margin[fake] >= 0).mean()),
        "false positive rate": float((margin[~fake] >= 0).mean()),
        "recall at 2 %": float((odds[fake] > np.quantile(odds[~fake], 1 - MAX_FPR)).mean()),
    }


def choices(cells: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over cells and numbers of examples by references and penalty, on texts outside the published results."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for which, penalty in itertools.product(REFERENCES, (f"{penalty:g}" for penalty in PENALTIES)):
        parts = [cell["after"][which][penalty][str(size)].get("selection") for cell in cells.values() for size in SIZES]
        scored = [part for part in parts if part]
        found.setdefault(which, {})[penalty] = {key: float(np.mean([part[key] for part in scored])) for key in scored[0]}
    return found


def page(found: dict[str, Any]) -> str:
    """Render the results as Markdown."""
    cells, penalty = found["cells"], f"{adaptation.PENALTY:g}"

    def table(measure: str, which: str) -> str:
        rows = [
            [
                name,
                f"{100 * cell['before'][measure]:.1f}",
                *(f"{100 * cell['after'][which][penalty][str(size)]['published'][measure]:.1f}" for size in SIZES),
            ]
            for name, cell in cells.items()
        ]
        heads = ["left out", "before", *(f"{size} examples" for size in SIZES)]
        mean = ["mean", *(f"{np.mean([float(row[column]) for row in rows]):.1f}" for column in range(1, len(heads)))]
        return markdown_table([heads, *rows, mean])

    tried = markdown_table(
        [
            ["references", "penalty", "recall at 2 %", "recall", "false positive rate"],
            *(
                [which, name, *(f"{100 * one[key]:.1f}" for key in ("recall at 2 %", "recall", "false positive rate"))]
                for which, penalties in found["choices"].items()
                for name, one in penalties.items()
            ),
        ]
    )
    return f"""# Adaptation to a few examples

Recall on generators and domains that were left out of training, before and after `Classifier.adapt` with a few fakes of them; in percent, means
over {DRAWS} draws of the examples. The models are trained like the built-in model, on fewer rows, and run in int8 (see [generalisation](generalization.md)). Neither examples
nor references are among the scored texts. In "gpt-4 hotels", "gpt-4o reviews" and "five domains", the domain was also left out of training.

## With human texts of the same domain

With {OWN} human texts as `references`, in place of the references of the model. Recall at the model's thresholds:

{table("recall", "own")}

False positive rate at these thresholds, on human texts of the same domain:

{table("false positive rate", "own")}

Recall at a false positive rate of {100 * MAX_FPR:g} % on human texts of the same domain:

{table("recall at 2 %", "own")}

![Recall at a false positive rate of 2 % by number of examples](adaptation.png)

## With the model's references only

These references come from the training domains. If the examples come from another domain, the correction learns the domain and also flags its human texts. Recall at the model's thresholds:

{table("recall", "the model's")}

False positive rate at these thresholds:

{table("false positive rate", "the model's")}

## References and penalty

Means over cells and numbers of examples, on other texts than those of the tables above. The penalty is the L2 penalty on the weights of the correction; the library's default is {penalty}.

{tried}

{describe(found["machine"])}

Made by `python benchmarks/adaptation.py`; data in [adaptation.json](adaptation.json).
"""


def draw_recall(cells: dict[str, Any]) -> None:
    """Draw a line for each cell."""
    penalty = f"{adaptation.PENALTY:g}"
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (name, cell), marker in zip(cells.items(), "osv^DP", strict=True):
        after = [cell["after"]["own"][penalty][str(size)]["published"]["recall at 2 %"] for size in SIZES]
        values = [100 * value for value in (cell["before"]["recall at 2 %"], *after)]
        axes.plot(range(len(values)), values, marker=marker, label=name, alpha=0.8)
    axes.set_xticks(range(len(SIZES) + 1), ["none", *map(str, SIZES)])
    axes.set(xlabel="examples", ylabel=f"recall at a false positive rate of {100 * MAX_FPR:g} %, in percent", ylim=(0, 101))
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(fontsize="small")
    figure.savefig(RESULTS / "adaptation.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Train, adapt, measure and write."""
    rows, cells = load(), {}
    for number, names in enumerate(SCREENING.values()):
        left_out, folder = {name: CELLS[name] for name in names}, WORK / str(number)
        if not is_bundle(folder):
            remaining = [row for row in rows if not any(cell.leaves_out(row) for cell in left_out.values())]
            make(CANDIDATES[SELECTED], remaining, folder, ANY)[0].save(folder)
        model = Classifier.from_pretrained(folder, runtime="onnxruntime", precision="int8")
        cells |= measured(model._trained(), left_out, rows)
    found = {"machine": machine(), "cells": cells, "choices": choices(cells)}
    draw_recall(cells)
    write("adaptation", found, page(found))


if __name__ == "__main__":
    main()
