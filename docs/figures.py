"""Figures of the documentation: macros that read them from docs/results when the pages are built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from reviewguard.cli import app

RESULTS = Path(__file__).parent / "results"


def define_env(env: Any) -> None:
    """Add the macros; mkdocs-macros calls this."""

    @env.macro
    def percent(experiment: str, model: str, metric: str, trained: str = "", scored: str = "scored", point: bool = False) -> str:
        """A metric in percent, mean over seeds, of a model in docs/results/EXPERIMENT.jsonl."""
        return f"{100 * mean(experiment, model, metric, trained, scored, point):.1f} %"

    @env.macro
    def table(name: str, number: int) -> str:
        """A table of docs/results/NAME.md, counted from 0."""
        blocks = (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
        return [block for block in blocks if block.startswith("| ")][number]

    @env.macro
    def command_line() -> str:
        """All commands with their options, as they say themselves."""
        command = typer.main.get_command(app)
        text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="reviewguard", indent=1)
        return text.replace("**Usage**:\n\n", "")

    @env.macro
    def default(name: str) -> str:
        """A figure of the model in the box in percent."""
        found = json.loads((RESULTS / "default-model.json").read_text(encoding="utf-8"))["shares"]
        return f"{100 * found[name]:.1f} %"


def mean(experiment: str, model: str, metric: str, trained: str, scored: str, point: bool) -> float:
    """Mean over seeds.

    Args:
        experiment: Name of the file.
        model: Contestant.
        metric: One of a report's.
        trained: Rows trained on; empty: whatever they were.
        scored: Rows scored.
        point: At the operating point.
    """
    lines = (RESULTS / f"{experiment}.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [run for run in map(json.loads, lines) if run["outcome"] == "done" and run["job"]["name"] == model]
    own = [run for run in runs if run["job"]["trained_on"] == (trained or run["job"]["trained_on"])]
    if not own:
        raise KeyError(f"no run of {model!r} trained on {trained!r} in {experiment}.jsonl")
    return sum(run["at_point" if point else "scores"][scored]["metrics"][metric]["value"] for run in own) / len(own)
