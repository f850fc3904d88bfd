"""Macros of the documentation. They read figures from docs/results when the pages are built."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
import msgspec
import typer
from msgspec import inspect as kinds
from typer.cli import get_docs_for_click

from reviewguard.cli.app import app

RESULTS = Path(__file__).parent / "results"


def define_env(env: Any) -> None:
    """Define the macros. mkdocs-macros calls this function."""

    @env.macro
    def percent(experiment: str, model: str, metric: str, trained: str = "", scored: str = "scored", point: bool = False) -> str:
        """Return a model's metric from docs/results/EXPERIMENT.jsonl in percent, averaged over seeds."""
        return f"{100 * mean(experiment, model, metric, trained, scored, point):.1f} %"

    @env.macro
    def table(name: str, number: int) -> str:
        """Return a table of docs/results/NAME.md by its index, starting at 0."""
        blocks = (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
        return [block for block in blocks if block.startswith("| ")][number]

    @env.macro
    def command_line() -> str:
        """Return the help texts of all commands and their options."""
        command = typer.main.get_command(app)
        assert isinstance(command, typer.core.TyperGroup)
        for subcommand in command.commands.values():
            subcommand.short_help = subcommand.help  # the list of commands would otherwise truncate it
        text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="reviewguard", indent=1)
        return text.replace("**Usage**:\n\n", "")

    @env.macro
    def settings(path: str) -> str:
        """Return a table of the fields that a Struct defines itself: allowed values, defaults and descriptions."""
        module, _, name = path.rpartition(".")
        return settings_table(getattr(import_module(module), name))

    @env.macro
    def default(name: str) -> str:
        """Return a share of the built-in model in percent, with its interval."""
        share = built_in()["shares"][name]
        return f"{100 * share['value']:.0f} % [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def built_in() -> Any:
    """Read docs/results/built-in.json."""
    return json.loads((RESULTS / "built-in.json").read_text(encoding="utf-8"))


def mean(experiment: str, model: str, metric: str, trained: str, scored: str, point: bool) -> float:
    """Average a metric over seeds.

    Args:
        experiment: File name in docs/results, without the suffix.
        model: Name of the candidate.
        metric: Name of the metric.
        trained: Name of the training rows. Empty: any.
        scored: Name of the scored rows.
        point: Whether to use the scores at the operating point.

    Raises:
        KeyError: If no run matches.
    """
    lines = (RESULTS / f"{experiment}.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [run for run in map(json.loads, lines) if run["outcome"] == "done" and run["job"]["name"] == model]
    matching = [run for run in runs if run["job"]["trained_on"] == (trained or run["job"]["trained_on"])]
    if not matching:
        raise KeyError(f"no run of {model!r} trained on {trained!r} in {experiment}.jsonl")
    return sum(run["at_point" if point else "scores"][scored]["metrics"][metric]["value"] for run in matching) / len(matching)


def settings_table(of: type[msgspec.Struct]) -> str:
    """Format the fields that a Struct defines itself as a Markdown table."""
    sections = griffe.Docstring(inspect.getdoc(of) or "").parse("google")
    attributes = [item for section in sections if section.kind.value == "attributes" for item in section.value]
    meanings = {attribute.name: attribute.description for attribute in attributes}
    lines = ["| setting | values | default | meaning |", "| --- | --- | --- | --- |"]
    for field in msgspec.structs.fields(of):
        if field.name not in inspect.get_annotations(of):
            continue
        kind = kinds.type_info(field.type)
        if isinstance(kind, kinds.StructType):
            values, default = f"[section](#{field.name})", ""
        else:
            values, default = in_words(kind), "required" if field.required else f"`{json.dumps(field.default)}`"
        meaning = " ".join(meanings[field.name].split()).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {values} | {default} | {meaning} |")
    return "\n".join(lines)


def in_words(kind: kinds.Type) -> str:
    """Describe the values of a type in words."""
    match kind:
        case kinds.BoolType():
            return "`true` or `false`"
        case kinds.StrType():
            return "text"
        case kinds.LiteralType(values):
            return ", ".join(f"`{json.dumps(value)}`" for value in values)
        case kinds.VarTupleType(item):
            return f"list of: {in_words(item)}"
        case kinds.UnionType(types):
            return "; or ".join(map(in_words, types))
        case kinds.IntType(gt=above, ge=least, lt=below, le=most) | kinds.FloatType(gt=above, ge=least, lt=below, le=most):
            bounds = {"above": above, "at least": least, "below": below, "at most": most}
            limits = " and ".join(f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None)
            return f"{'whole number' if isinstance(kind, kinds.IntType) else 'number'} {limits}".strip()
    raise NotImplementedError(kind)
