"""Simulate A/B tests that are looked at daily, and write docs/results/ab-tests.

    python benchmarks/ab_tests.py [--tests 1000]

Each test runs for 30 days. In an A/A test both models are right with the same probability; the confidence sequence of `reviewguard ab` and
an ordinary 95 % interval are looked at every day, and either promotes a model when it first excludes 0. In the other tests the challenger
is right more often. Needs a few minutes.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _results import RESULTS, describe, machine, write
from scipy.stats import binomtest

from reviewguard.evaluation.sequential import BURN_IN, Difference, paired_difference, unpaired, unpaired_difference

DAYS = 30
TEXTS_A_DAY = (100, 300, 1000)
#: Probability that the champion is right, and by how much that of the challenger is higher.
TRUTHS = ((0.90, 0.0), (0.98, 0.0), (0.90, 0.01), (0.90, 0.02), (0.90, 0.05))
DESIGNS = {"shadow": None, "split, 50 %": 0.5, "split, 10 %": 0.1}
Look = Callable[[int], Difference | None]


def simulated(rng: np.random.Generator, n: int, truth: tuple[float, float], share: float | None) -> tuple[np.ndarray, Look]:
    """Values whose mean is the difference in accuracy, and what `reviewguard ab` reports after so many texts."""
    accuracy, gain = truth
    if share is None:
        champion, challenger = ((rng.random(n) < right).astype(float) for right in (accuracy, accuracy + gain))
        return challenger - champion, lambda count: paired_difference(champion[:count], challenger[:count])
    assigned = rng.random(n) < share
    right = (rng.random(n) < np.where(assigned, accuracy + gain, accuracy)).astype(float)
    shares = np.full(n, share)
    return unpaired(right, assigned, shares), lambda count: unpaired_difference(right[:count], assigned[:count], shares[:count])


def looked_at(values: np.ndarray, look: Look, texts: int) -> tuple[int | None, int | None]:
    """The day on which the confidence sequence, and an ordinary interval, first exclude 0."""
    days = np.arange(1, DAYS + 1)
    # Bounds only tighten: what a look excludes, later ones do.
    first = bisect_left(days, True, key=lambda day: (found := look(day * texts)) is not None and found.is_significant)
    sequence = int(days[first]) if first < DAYS else None
    ends = days * texts
    ends = ends[ends >= BURN_IN]
    sums, squares = np.cumsum(values)[ends - 1], np.cumsum(values**2)[ends - 1]
    means = sums / ends
    errors = np.sqrt(np.maximum(squares / ends - means**2, 0) / ends)
    out = np.flatnonzero(np.abs(means) > 1.96 * errors)
    return sequence, int(ends[out[0]] // texts) if len(out) else None


def simulate(tests: int) -> list[dict[str, Any]]:
    """How many tests of each kind promote a model."""
    rows = []
    for design, share in DESIGNS.items():
        for texts in TEXTS_A_DAY:
            for number, truth in enumerate(TRUTHS):
                rng = np.random.default_rng([tests, texts, number, round(1000 * (share or 0))])
                days = [looked_at(*simulated(rng, DAYS * texts, truth, share), texts) for _ in range(tests)]
                found = {"design": design, "texts": texts, "accuracy": truth[0], "gain": truth[1], "tests": tests}
                for position, name in enumerate(("sequence", "ordinary")):
                    promoted = [day[position] for day in days if day[position] is not None]
                    interval = binomtest(len(promoted), tests).proportion_ci(method="exact")
                    found[name] = {
                        "promoted": len(promoted) / tests,
                        "interval": [float(interval.low), float(interval.high)],
                        "by_day": [sum(day <= last for day in promoted) / tests for last in range(1, DAYS + 1)],
                    }
                rows.append(found)
    return rows


def page(rows: list[dict[str, Any]], about: dict[str, Any], tests: int) -> str:
    """The results as Markdown."""
    worst = max((row for row in rows if row["gain"] == 0), key=lambda row: row["sequence"]["promoted"])
    ordinary = [row["ordinary"]["promoted"] for row in rows if row["gain"] == 0]
    lines = [
        "# A/B tests that are looked at daily",
        "",
        f"Each of {tests} simulated tests per row runs for {DAYS} days. The challenger is right on as many texts as the champion (an A/A "
        f"test) or on more. A model is promoted when the interval of the difference excludes 0 on any day. "
        f"Of A/A tests, the confidence sequence of `reviewguard ab` promotes at most {worst['sequence']['promoted']:.1%} "
        f"({worst['design']}, {worst['texts']} texts a day), and an ordinary 95 % interval {min(ordinary):.0%} to {max(ordinary):.0%}.",
        "",
        "| Design | Texts a day | Accuracy of the champion | True gain | Promoted by the confidence sequence | By an ordinary interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = []
        for name in ("sequence", "ordinary"):
            low, high = row[name]["interval"]
            cells.append(f"{row[name]['promoted']:.1%} [{low:.1%}, {high:.1%}]")
        about_row = f"| {row['design']} | {row['texts']} | {row['accuracy']:.0%} | {100 * row['gain']:.0f} points"
        lines.append(f"{about_row} | {' | '.join(cells)} |")
    lines += [
        "",
        "![Tests that have promoted a model, by day](ab-tests.svg)",
        "",
        "Errors of the two models on a text are independent here. Real models make many of the same errors, which leaves fewer pairs "
        "that differ, so that a shadow finds a difference sooner than in this table.",
        "",
        describe(about) + " Command: `python benchmarks/ab_tests.py`.",
    ]
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> None:
    """Promotions by day: A/A tests, and a gain of two points."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, gain, title in zip(axes, (0.0, 0.02), ("Equal models", "True gain of 2 points"), strict=True):
        for row in rows:
            if row["gain"] == gain and row["texts"] == 300 and row["accuracy"] == TRUTHS[0][0]:
                (line,) = axis.plot(range(1, DAYS + 1), row["sequence"]["by_day"], label=row["design"])
                axis.plot(range(1, DAYS + 1), row["ordinary"]["by_day"], linestyle=":", color=line.get_color())
        axis.set(title=title, xlabel="Day", ylabel="Share of tests that promoted", ylim=(0, 1 if gain else 0.5))
    axes[0].axhline(0.05, color="grey", linestyle="--", linewidth=1)
    axes[0].legend(title="Solid: confidence sequence\nDotted: ordinary interval", fontsize="small", title_fontsize="small")
    figure.savefig(RESULTS / "ab-tests.svg", metadata={"Date": None})


def main() -> None:
    """Simulate, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=1000, help="tests of each kind")
    asked = parser.parse_args()
    rows = simulate(asked.tests)
    about = machine(["scipy"])
    write("ab-tests", {"machine": about, "days": DAYS, "rows": rows}, page(rows, about, asked.tests))
    plot(rows)


if __name__ == "__main__":
    main()
