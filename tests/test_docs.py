"""Every snippet of the documentation runs: Python blocks in one namespace a page, console blocks in a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call
from sybil import Example
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
#: tests/test_publish.py runs it, against a Hub of its own.
HUB = ROOT / "docs" / "how-to" / "hub.md"
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {HUB})]
#: Ray calls others by their old names.
RAY = [pytest.mark.filterwarnings(f"ignore::{name}") for name in ("DeprecationWarning", "FutureWarning")]
PROMPT = "$ "


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=RAY if page.stem == "scale" else (), id=page.relative_to(ROOT).as_posix()) for page in PAGES],
)
def test_snippets_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("vendor", "model"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    for example in Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("console", run_console)):
        example.evaluate()
    if "ray" in sys.modules:  # what a page has started
        sys.modules["ray"].shutdown()


def run_console(example: Example) -> None:
    """Run the lines behind a prompt; other lines show output. What a page says to install is installed already."""
    commands = [line.removeprefix(PROMPT) for line in example.parsed.splitlines() if line.startswith(PROMPT)]
    assert commands, f"{example.path}, line {example.line}: a console block without a prompt"
    for command in commands:
        if command.startswith("reviewguard "):
            assert not call(*shlex.split(command)[1:]), f"{example.path}, line {example.line}: {command}"
        elif not command.startswith("pip install"):
            done = subprocess.run(command, shell=True, capture_output=True, text=True, encoding="utf-8")
            assert done.returncode == 0, f"{example.path}, line {example.line}: {command}\n{done.stdout}{done.stderr}"
