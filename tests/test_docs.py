"""Run every snippet of the documentation: Python blocks in one namespace per page, console blocks in a shell."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Literal

import msgspec
import pytest
from commands import call
from pages import tables
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from reviewguard import config
from reviewguard.training import backends

ROOT = Path(__file__).parent.parent
#: tests/test_publish.py runs this page against a local Hub.
HUB = ROOT / "docs" / "how-to" / "hub.md"
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {HUB})]
#: Ray uses deprecated names of other packages.
RAY = [pytest.mark.filterwarnings(f"ignore::{name}") for name in ("DeprecationWarning", "FutureWarning")]
PROMPT = "$ "


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=RAY if page.stem == "ray" else (), id=page.relative_to(ROOT).as_posix()) for page in PAGES],
)
def test_snippets_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("vendor", "model"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    for example in Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("console", run_console)):
        example.evaluate()
    if "ray" in sys.modules:  # started by the page
        sys.modules["ray"].shutdown()


def run_console(example: Example) -> None:
    """Run the lines after a prompt; other lines are output. Skip installation commands."""
    commands = [line.removeprefix(PROMPT) for line in example.parsed.splitlines() if line.startswith(PROMPT)]
    assert commands, f"{example.path}, line {example.line}: a console block without a prompt"
    for command in commands:
        if command.startswith("reviewguard "):
            assert not call(*shlex.split(command)[1:]), f"{example.path}, line {example.line}: {command}"
        elif not command.startswith("pip install"):
            done = subprocess.run(command, shell=True, capture_output=True, text=True, encoding="utf-8")
            assert done.returncode == 0, f"{example.path}, line {example.line}: {command}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("figures")


def test_settings_are_described_in_plain_words(figures: ModuleType):
    class Settings(config.LoraConfig, frozen=True, kw_only=True):
        """Some.

        Attributes:
            many: A list,
                over two lines, with a | in it.
            loop: A section.
            seed: Of chance.
            name: Anything.
        """

        many: tuple[Annotated[float, msgspec.Meta(ge=0, lt=1)], ...] | Literal["all"] = "all"
        loop: config.LoopConfig = config.LoopConfig()
        seed: Annotated[int, msgspec.Meta(gt=0, le=4000)] = 42
        name: str

    ((head, *rows),) = tables(figures.settings_table(Settings))
    assert head == ["setting", "values", "default", "meaning"]
    assert sorted(rows) == [
        ["`loop`", "[section](#loop)", "", "A section."],
        ["`many`", 'list of: number at least 0 and below 1; or `"all"`', '`"all"`', "A list, over two lines, with a \\| in it."],
        ["`name`", "text", "required", "Anything."],
        ["`seed`", "whole number above 0 and at most 4,000", "`42`", "Of chance."],
    ]


def test_every_setting_is_in_the_reference():
    """A new section or backend needs an entry in the reference."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    shown = set(re.findall(r'{{ settings\("([\w.]+)"\) }}', page))
    structs = {config.Recipe, *(backends.get_backend(name).Config for name in backends.backend_names())}
    structs |= {field.type for one in structs for field in msgspec.structs.fields(one) if isinstance(field.type, type(one))}
    assert {f"{one.__module__}.{one.__qualname__}" for one in structs} == shown


def test_the_list_of_commands_is_not_truncated(figures: ModuleType):
    macros = {}
    figures.define_env(SimpleNamespace(macro=lambda macro: macros.setdefault(macro.__name__, macro)))
    listed = macros["command_line"]().partition("**Commands**:\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) == 15
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
