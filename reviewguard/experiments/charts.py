"""Charts of reports, as SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import requires

with requires("experiments"):
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, PercentFormatter, StrMethodFormatter
with requires("train"):
    from sklearn.metrics import precision_recall_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#0b5cad"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "reviewguard",  # equal data gives equal files
    "svg.fonttype": "none",  # text stays text: the reader's fonts cover more scripts than matplotlib's
    "text.parse_math": False,  # a dollar sign starts no formula
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def dots(values: Mapping[str, Estimate], seeds: Mapping[str, Sequence[float]], title: str) -> bytes:
    """Draw the value of each model with its interval, and its seeds as rings; the best model is on top."""
    names = sorted(values, key=lambda name: values[name].value or 0)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.8 + 0.36 * len(names)), layout="constrained")
        axis = figure.subplots()
        for row, name in enumerate(names):
            estimate = values[name]
            if estimate.value is None:
                continue
            if estimate.low is not None and estimate.high is not None:
                axis.plot([estimate.low, estimate.high], [row, row], color=_INK, alpha=0.35, linewidth=5, solid_capstyle="butt")
            axis.plot(seeds[name], [row] * len(seeds[name]), "o", markerfacecolor="none", markeredgecolor="#555", markersize=4)
            axis.plot(estimate.value, row, "o", color=_INK, markersize=6)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axis.set_xlabel(title)
    return _svg(figure)


def ranking_curves(truth: NDArray[np.bool_], margins: Mapping[str, NDArray[np.floating]], positive: str) -> bytes:
    """Draw ROC curves, with the false positive rate on a logarithmic scale, and precision-recall curves."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.4), layout="constrained")
        roc, pr = figure.subplots(1, 2)
        negatives = int((~truth).sum())
        for name, margin in margins.items():
            wrong, hits, _ = roc_curve(truth, margin)
            roc.plot(np.maximum(wrong, 0.5 / negatives), hits, label=name, linewidth=1.2, drawstyle="steps-post")
            precision, recall, _ = precision_recall_curve(truth, margin, drop_intermediate=True)
            pr.plot(recall, precision, label=name, linewidth=1.2)
        roc.set(
            xscale="log",
            xlim=(min(1 / negatives, 0.5), 1),
            ylim=(0, 1.01),
            xlabel="false positive rate",
            ylabel=f"recall of {positive}",
        )
        _plain(roc)
        pr.set(xlim=(0, 1.005), ylim=(0, 1.01), xlabel=f"recall of {positive}", ylabel="precision")
        figure.legend(*roc.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return _svg(figure)


def confusions(matrices: Mapping[str, NDArray[np.floating]], classes: Sequence[str]) -> bytes:
    """Draw confusion matrices side by side, each row as shares of its class."""
    columns = min(4, len(matrices))
    rows = -(-len(matrices) // columns)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        longest = 0.08 * max(map(len, classes))
        figure = Figure(figsize=((2 + longest) * columns, (2.2 + longest) * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(matrices) :]:
            axis.set_visible(False)
        for axis, (name, matrix) in zip(axes, matrices.items(), strict=False):
            share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            _cells(axis, share, [[f"{100 * value:.1f}%" for value in row] for row in share])
            axis.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
            axis.set_yticks(range(len(classes)), classes)
            axis.set_title(name, fontsize=8, wrap=True)
        figure.supxlabel("predicted class", fontsize=9)
        figure.supylabel("true class", fontsize=9)
    return _svg(figure)


def pareto(points: Mapping[str, tuple[float, float]], front: Sequence[str], quality: str) -> bytes:
    """Draw quality (second coordinate) against speed in reviews per second (first), with the Pareto front as a line."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axis = figure.subplots()
        line = np.array([points[name] for name in front])
        axis.plot(*line.T, color=_INK, alpha=0.4, linewidth=1.5, drawstyle="steps-pre")
        for name, (speed, value) in points.items():
            axis.plot(speed, value, "o", color=_INK if name in front else "#999")
            # Labels at about the same height point away from each other.
            others = [(abs(height - value), at) for other, (at, height) in points.items() if other != name]
            left = bool(others) and min(others)[1] > speed
            where, side = ((-4, 4), "right") if left else ((4, 4), "left")
            axis.annotate(name, (speed, value), xytext=where, ha=side, textcoords="offset points", fontsize=7)
        axis.set(xscale="log", xlabel="reviews per second", ylabel=quality)
        _plain(axis)
        axis.margins(x=0.25, y=0.15)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    return _svg(figure)


def steps(
    values: Sequence[str], estimates: Sequence[Estimate], seeds: Sequence[Sequence[float]], setting: str, quality: str
) -> bytes:
    """Draw a metric over the values of one setting, with intervals and seeds."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3), layout="constrained")
        axis = figure.subplots()
        where = range(len(values))
        mean, low, high = np.array([(estimate.value, estimate.low, estimate.high) for estimate in estimates], dtype=float).T
        axis.plot(where, mean, color=_INK, marker="o")
        axis.fill_between(where, low, high, color=_INK, alpha=0.12)
        for x, per_seed in zip(where, seeds, strict=True):
            axis.plot([x] * len(per_seed), per_seed, "o", markerfacecolor="none", markeredgecolor="#555", markersize=4)
        axis.set_xticks(where, values)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axis.set(xlabel=setting, ylabel=quality)
    return _svg(figure)


def heatmap(shares: NDArray[np.floating], rows: Sequence[str], columns: Sequence[str], title: str) -> bytes:
    """Draw shares (rows, columns) as colours and numbers; NaN stays empty."""
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2 + 0.95 * len(columns), 1 + 0.42 * len(rows)), layout="constrained")
        axis = figure.subplots()
        _cells(axis, shares, [["" if np.isnan(value) else f"{100 * value:.1f}" for value in row] for row in shares])
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.set_title(title, fontsize=9)
    return _svg(figure)


def _cells(axis: Axes, shares: NDArray[np.floating], texts: Sequence[Sequence[str]]) -> None:
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            dark = shares[row, column] > 0.6
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _plain(axis: Axes) -> None:
    """Write plain numbers on a logarithmic axis; the default labels are formulas, which are not parsed here."""
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(LogFormatter())


def pairs(rows: Mapping[str, tuple[Estimate, Estimate]], titles: tuple[str, str]) -> bytes:
    """Draw two shares of each row with their intervals; the first row is on top."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 1.1 + 0.3 * len(rows)), layout="constrained")
        axis = figure.subplots()
        for place, (title, color, marker) in enumerate(zip(titles, (_INK, "#b3541e"), "os", strict=True)):
            estimates = [row[place] for row in rows.values()]
            values = np.array([[one.value, one.low, one.high] for one in estimates], dtype=np.float64)
            reach = np.abs(values[:, :1] - values[:, 1:]).T
            axis.errorbar(
                values[:, 0], range(len(rows)), xerr=reach, fmt=marker, color=color, label=title, elinewidth=3, alpha=0.8
            )
        axis.set_yticks(range(len(rows)), list(rows))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlim(-0.02, 1.02)
        figure.legend(loc="outside lower center", ncols=2)
    return _svg(figure)


def sequences(paths: Mapping[str, Sequence[tuple[int, float, float, float]]]) -> bytes:
    """Draw estimates with their bounds over the number of texts, one below the other: texts, estimate, lower and upper bound."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.4 + 1.5 * len(paths)), layout="constrained")
        axes = figure.subplots(len(paths), squeeze=False)[:, 0]
        for axis, (name, path) in zip(axes, paths.items(), strict=True):
            texts, mean, low, high = np.array(path, dtype=float).T
            axis.fill_between(texts, low, high, color=_INK, alpha=0.15)
            axis.plot(texts, mean, color=_INK)
            axis.axhline(0, color="#555", linewidth=0.8)
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            axis.set_title(name, fontsize=9, loc="left")
        axes[-1].set_xlabel("texts")
    return _svg(figure)


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
