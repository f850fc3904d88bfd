"""Commands of the command line, run in this process, which has loaded already what takes a new one ten seconds."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest

from reviewguard.cli import app as cli


def call(*arguments: object) -> int | None:
    """Run a command; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["reviewguard", *map(str, arguments)])
        cli.main()
    return ended.value.code


def captured(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command, and keep what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        status = call(*arguments)
    assert not check or not status, error.getvalue()
    return subprocess.CompletedProcess([*map(str, arguments)], status or 0, out.getvalue(), error.getvalue())
