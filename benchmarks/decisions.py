"""Set decisions on half of the validation rows, measure them on the other half, and write docs/results/decisions.

    python benchmarks/decisions.py

Takes the logits that `benchmarks/evidence.py --only compare-minilm` kept, of the validation rows of ../shared/data/reviews_gpt2.csv.
They are divided at random many times; what is set on one half is measured on the other, which nothing was set on.
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
from reviewguard.evaluation import operating
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
    """Figures of every draw, measured on the half that nothing was set on."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    for _ in range(DRAWS):
        order = rng.permutation(len(y))
        own, new = order[: len(y) // 2], order[len(y) // 2 :]
        temperature = operating.calibrate(logits[own], y[own], draws=0).temperature
        note("temperature", temperature)
        note("error before", calibration_error(y[new], Decision().probabilities(logits[new])))
        note("error after", calibration_error(y[new], Decision(temperature=temperature).probabilities(logits[new])))
        for rate in RATES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the rate is not known well is what is shown here
                point = operating.operating_point(logits[own], y[own], positive, rate)
            called = Decision(operating_point=point).scores(logits[new], positive).argmax(axis=1) == positive
            note(f"false positives {rate}", called[y[new] != positive].mean())
            note(f"recall {rate}", called[y[new] == positive].mean())
            certain = Decision(abstention=operating.abstain_by_error_rate(logits[own], y[own], rate)).certain(logits[new])
            note(f"review {rate}", (certain < 0).mean())
            for index, name in enumerate(classes):
                of_class = certain[y[new] == index]
                note(f"errors {name} {rate}", ((of_class >= 0) & (of_class != index)).mean())
    return {
        name: {"mean": float(np.mean(v)), "low": float(np.percentile(v, 2.5)), "high": float(np.percentile(v, 97.5))}
        for name, v in found.items()
    }


def percent(of: dict[str, float]) -> str:
    """A mean with the range of 95 % of the draws."""
    return f"{100 * of['mean']:.2f} [{100 * of['low']:.2f}, {100 * of['high']:.2f}]"


def at_rates(head: list[str], figures: list[str], results: dict[str, Any]) -> str:
    """A table of figures, of each model at each rate asked for."""
    asked = [(name, of, rate) for name, of in results.items() for rate in RATES]
    rows = [[name, f"{100 * rate:g}", *(percent(of[f"{one} {rate}"]) for one in figures)] for name, of, rate in asked]
    return markdown_table([head, *rows])


def draw(curves: dict[str, Any]) -> None:
    """Reliability before and after, each model in a panel; of one half, set on the other."""
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
    """Measure, draw, write."""
    results, curves, rows = {}, {}, 0
    for name in MODELS:
        logits, y, classes = held_out(name)
        positive, rows = classes.index("fake"), len(y)
        results[name] = halves(logits, y, classes, positive)
        order = np.random.default_rng(0).permutation(len(y))
        own, new = order[: len(y) // 2], order[len(y) // 2 :]
        temperature = operating.calibrate(logits[own], y[own], draws=0).temperature
        curves[name] = {
            title: msgspec.to_builtins(reliability(y[new], Decision(temperature=t).probabilities(logits[new])))
            for title, t in (("before", 1.0), ("calibrated", temperature))
        }
    draw(curves)
    about = machine()
    parts = [
        "# Decisions on rows that they were not set on",
        f"The {rows} validation rows of `{DATA.name}` were divided at random {DRAWS} times: what is set on one half is measured on the "
        "other. Means, in percent, with the range of 95 % of the draws; the draws share their rows, so the range is that of the "
        "division, not of new data.",
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
        "![Confidence against accuracy, before and after](decisions.png)",
        "## Operating points",
        at_rates(["model", "false positives asked for", "measured", "recall"], ["false positives", "recall"], results),
        "## Abstention",
        at_rates(
            ["model", "errors allowed", "among fake", "among real", "needs review"],
            ["errors fake", "errors real", "review"],
            results,
        ),
        "All of this holds for texts like these. On fakes of another generator neither rate is held.",
        describe(about),
        "Made by `python benchmarks/decisions.py`, after `python benchmarks/evidence.py --only compare-minilm`; figures in "
        "[decisions.json](decisions.json).",
    ]
    write("decisions", {"machine": about, "draws": DRAWS, "rows": rows, "models": results, "curves": curves}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
