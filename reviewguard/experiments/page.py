"""A report as blocks, rendered to Markdown or to one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from reviewguard import files
from reviewguard.errors import requires
from reviewguard.evaluation.tables import markdown_table

with requires("experiments"):
    import jinja2


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """An SVG figure; `about` is its caption and alternative text, `name` becomes part of its file name next to the Markdown."""

    name: str
    about: str
    svg: bytes

    @property
    def uri(self) -> str:
        """The figure as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: Sequence[str]


Block: TypeAlias = str | Items | Table | Figure


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a string is a paragraph."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report: findings first, then the evidence.

    Attributes:
        title: Title of the report.
        short: Findings, one sentence each.
        sections: Sections with the evidence.
        about: Hardware, versions and command.
    """

    title: str
    short: Sequence[str]
    sections: Sequence[Section]
    about: Sequence[str] = field(default=())

    def to_markdown(self, name: str = "report") -> str:
        """Render to Markdown; figures are files whose names start with `name`."""
        parts = [f"# {self.title}", _markdown(Items(self.short), name)]
        for section in self.sections:
            parts += [f"## {section.title}", *(_markdown(block, name) for block in section.blocks)]
        return "\n\n".join([*parts, *self.about]) + "\n"

    def to_html(self) -> str:
        """Render to one HTML file with embedded styles and figures."""
        template = resources.files("reviewguard.experiments").joinpath("page.html").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        environment.tests["table"] = lambda block: isinstance(block, Table)
        environment.tests["figure"] = lambda block: isinstance(block, Figure)
        environment.tests["items"] = lambda block: isinstance(block, Items)
        return environment.from_string(template).render(page=self)

    def save(self, folder: Path, name: str = "report") -> None:
        """Write NAME.html, NAME.md and the figures of the Markdown file."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Figure):
                    files.replace(folder / f"{name}-{block.name}.svg", block.svg)
        files.replace(folder / f"{name}.md", self.to_markdown(name).encode())
        files.replace(folder / f"{name}.html", self.to_html().encode())


def _markdown(block: Block, name: str) -> str:
    if isinstance(block, Table):
        return markdown_table([list(block.head), *map(list, block.rows)])
    if isinstance(block, Figure):
        return f"![{block.about}]({name}-{block.name}.svg)"
    if isinstance(block, Items):
        return "\n".join(f"- {item}" for item in block.items)
    return block
