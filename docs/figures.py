"""Figures of the documentation: macros that read them from docs/results when the pages are built."""

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
        assert isinstance(command, typer.core.TyperGroup)
        for one in command.commands.values():
            one.short_help = one.help  # else the list of commands cuts it
        text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="reviewguard", indent=1)
        return text.replace("**Usage**:\n\n", "")

    @env.macro
    def settings(path: str) -> str:
        """The fields that a Struct adds to those it inherits: values, defaults, and what its docstring says of them."""
        module, _, name = path.rpartition(".")
        return settings_table(getattr(import_module(module), name))

    @env.macro
    def default(name: str) -> str:
        """A figure of the built-in model in percent, with its interval."""
        one = built_in()["shares"][name]
        return f"{100 * one['value']:.0f} % [{100 * one['low']:.0f}, {100 * one['high']:.0f}]"


def built_in() -> Any:
    """What docs/results/built-in.json holds."""
    return json.loads((RESULTS / "built-in.json").read_text(encoding="utf-8"))


def mean(experiment: str, model: str, metric: str, trained: str, scored: str, point: bool) -> float:
    """Mean over seeds.

    Args:
        experiment: Name of the file.
        model: Candidate.
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


def settings_table(of: type[msgspec.Struct]) -> str:
    """The fields that a Struct adds, as a table."""
    sections = griffe.Docstring(inspect.getdoc(of) or "").parse("google")
    meanings = {one.name: one.description for section in sections if section.kind.value == "attributes" for one in section.value}
    lines = ["| setting | values | default | meaning |", "| --- | --- | --- | --- |"]
    for field in msgspec.structs.fields(of):
        if field.name not in inspect.get_annotations(of):
            continue
        kind = kinds.type_info(field.type)
        if isinstance(kind, kinds.StructType):
            values, given = f"[section](#{field.name})", ""
        else:
            values, given = in_words(kind), "required" if field.required else f"`{json.dumps(field.default)}`"
        meaning = " ".join(meanings[field.name].split()).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {values} | {given} | {meaning} |")
    return "\n".join(lines)


def in_words(kind: kinds.Type) -> str:
    """What may be given, as people say it."""
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
