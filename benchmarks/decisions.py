"""Set decisions on half of the validation rows, measure them on the other half, and write docs/results/decisions.

    python benchmarks/decisions.py

Uses the logits of the validation rows of ../shared/data/reviews_gpt2.csv, saved by `benchmarks/evidence.py --only compare-minilm`.
The rows are split in half at random many times; decisions are set on one half and measured on the other.
"""

from __future__ import annotations

import warnings
from typing import Any

import matplotlib.pyplot as plt
import msgspec
import numpy as np
from _results import RESULTS, ROOT, SHARED, describe, machine, write

from reviewguard.bundle.decision import Decision
from reviewguard.data.assigned import only
from reviewguard.data.reviews import class_indices, read
from reviewguard.evaluation import calibration, operating
from reviewguard.evaluation.metrics import calibration_error, reliability
from reviewguard.evaluation.tables import markdown_table
from reviewguard.experiments.results import logits_of, read_results

DATA = SHARED / "reviews_gpt2.csv"
WORK = ROOT / "build" / "evidence" / "compare-minilm"
MODELS = ("minilm-finetune", "minilm-qlora", "minilm-logreg")
DRAWS = 200
RATES = (0.005, 0.01, 0.02, 0.05)


def held_out(name: str) -> tuple[Any, Any, list[str]]:
    """Logits of the validation rows by the first seed of a model, their class indices, and the classes."""
    result = next(one for one in read_results(WORK) if one.job.name == name and one.outcome == "done")
    _, labels = only(read(DATA), "split", "validation").require_complete()
    return logits_of(result, WORK)["scored"], class_indices(labels, result.classes), result.classes


def halves(logits: Any, y: Any, classes: list[str], positive: int) -> dict[str, Any]:
    """Measurements of every draw on the held-out half, as means with ranges."""
    rng = np.random.default_rng(0)
    values: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        values.setdefault(name, []).append(float(value))

    for _ in range(DRAWS):
        order = rng.permutation(len(y))
        own, new = order[: len(y) // 2], order[len(y) // 2 :]
        temperature = calibration.calibrate(logits[own], y[own], draws=0).temperature
        note("temperature", temperature)
        note("error before", calibration_error(y[new], Decision().probabilities(logits[new])))
        note("error after", calibration_error(y[new], Decision(temperature=temperature).probabilities(logits[new])))
        for rate in RATES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the uncertainty of the rate is the result here
                point = operating.operating_point(logits[own], y[own], positive, rate)
            predicted = Decision(operating_point=point).scores(logits[new], positive).argmax(axis=1) == positive
            note(f"false positives {rate}", predicted[y[new] != positive].mean())
            note(f"recall {rate}", predicted[y[new] == positive].mean())
            certain = Decision(abstention=operating.abstain_by_error_rate(logits[own], y[own], rate)).certain(logits[new])
            note(f"review {rate}", (certain < 0).mean())
            for index, name in enumerate(classes):
                of_class = certain[y[new] == index]
                note(f"errors {name} {rate}", ((of_class >= 0) & (of_class != index)).mean())
    return {
        name: {"mean": float(np.mean(v)), "low": float(np.percentile(v, 2.5)), "high": float(np.percentile(v, 97.5))}
        for name, v in values.items()
    }


def percent(of: dict[str, float]) -> str:
    """A mean with the range of 95 % of the draws, in percent."""
    return f"{100 * of['mean']:.2f} [{100 * of['low']:.2f}, {100 * of['high']:.2f}]"


def at_rates(head: list[str], figures: list[str], results: dict[str, Any]) -> str:
    """A table with a row for each model and target rate."""
    targets = [(name, of, rate) for name, of in results.items() for rate in RATES]
    rows = [[name, f"{100 * rate:g}", *(percent(of[f"{one} {rate}"]) for one in figures)] for name, of, rate in targets]
    return markdown_table([head, *rows])


def draw(curves: dict[str, Any]) -> None:
    """Draw reliability before and after calibration, one panel per model."""
    figure, axes = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 4), squeeze=False, layout="constrained")
    for axis, (name, of) in zip(axes[0], curves.items(), strict=True):
        axis.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1, linestyle=":")
        for title, bins in of.items():
            axis.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o", label=title)
        axis.set(title=name, xlabel="confidence", ylabel="accuracy")
        axis.legend()
    figure.savefig(RESULTS / "decisions.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, draw and write."""
    results, curves, rows = {}, {}, 0
    for name in MODELS:
        logits, y, classes = held_out(name)
        positive, rows = classes.index("fake"), len(y)
        results[name] = halves(logits, y, classes, positive)
        order = np.random.default_rng(0).permutation(len(y))
        own, new = order[: len(y) // 2], order[len(y) // 2 :]
        temperature = calibration.calibrate(logits[own], y[own], draws=0).temperature
        curves[name] = {
            title: msgspec.to_builtins(reliability(y[new], Decision(temperature=t).probabilities(logits[new])))
            for title, t in (("before", 1.0), ("calibrated", temperature))
        }
    draw(curves)
    about = machine()
    parts = [
        "# Decisions on held-out rows",
        f"The {rows} validation rows of `{DATA.name}` are split in half at random {DRAWS} times. Decisions are set on one half and "
        "measured on the other. Values are means in percent, with the range of 95 % of the draws. All draws use the same rows, so "
        "the range reflects the split, not new data.",
        "## Calibration",
        markdown_table(
            [
                ["model", "temperature", "expected calibration error before", "after"],
                *(
                    [name, f"{of['temperature']['mean']:.2f}", percent(of["error before"]), percent(of["error after"])]
                    for name, of in results.items()
                ),
            ]
        ),
        "![Confidence against accuracy, before and after calibration](decisions.png)",
        "## Operating points",
        at_rates(["model", "target false positive rate", "measured", "recall"], ["false positives", "recall"], results),
        "## Abstention",
        at_rates(
            ["model", "target error rate", "errors among fake", "errors among real", "needs review"],
            ["errors fake", "errors real", "review"],
            results,
        ),
        "These results apply to texts like these. On fakes of another generator, neither rate holds.",
        describe(about),
        "Made by `python benchmarks/decisions.py`, after `python benchmarks/evidence.py --only compare-minilm`; data in "
        "[decisions.json](decisions.json).",
    ]
    write("decisions", {"machine": about, "draws": DRAWS, "rows": rows, "models": results, "curves": curves}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
