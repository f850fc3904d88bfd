"""The OpenAPI schema, fuzzed: every answer is one that it describes, and none is an error of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from http_server import server


@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_answers_are_as_the_schema_says(exported: Path, tmp_path: Path, examples: int) -> None:
    with server(str(exported)) as (_, url):
        # Not checked: that everything that fits the schema is accepted. It cannot say that a request has either text or texts.
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", "all"]
        command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", str(examples)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "9 selected / 9 total" in done.stdout
