"""Retired names and phrases stay out of code, messages and pages; docs/glossary.md has the terms in use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: What must not come back, and the term to use.
RETIRED = {
    r"\btriages?\b|set_triage": "abstention",
    r"\bFitted\b(?! coefficients| by)": "TrainedModel",
    r"\brehears": "dry run",
    r"\bcontest": "comparison, candidate",
    r"\bunfamiliar": "out-of-distribution, out-of-domain",
    r"default_model|DEFAULT_MODEL": "builtin",
    r"\bin the box\b": "the built-in model",
    r"left to people|leaves? (?:a text|texts|them) to people": "abstention, needs review",
    r"called (?:positive|negative|fakes?|so)\b|taken for\b": "classified as",
    r"fakes found|called fakes": "recall; false positive rate",
    r"goes on (?:after|behind|from|with)|after a kill\b": "resumes after an interruption",
    r"begin(?:s)? anew|made anew": "start over",
    r"whatever dies|that you can bear|not sure of|what decides it": "plain technical English",
    r"bag of words": "TF-IDF baseline",
    r"see there\b": "the description itself",
}
#: Where an old name is data: the reader of format 1, and this test.
EXCEPT = {"reviewguard/bundle/format_1.py", "tests/test_language.py"}


def texts() -> list[Path]:
    folders = ["reviewguard", "docs", "examples", "benchmarks"]
    suffixes = (".py", ".md", ".toml", ".js", ".html")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    paths += [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "mkdocs.yml")]
    return [
        path
        for path in paths
        if not {"vendor", "node_modules"} & set(path.parts) and path.relative_to(ROOT).as_posix() not in EXCEPT
    ]


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_names_and_phrases_stay_out(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:160]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE if pattern.islower() else 0)
    ]
    assert not found, f"use: {RETIRED[pattern]}\n" + "\n".join(found)
