"""Console streams that survive the loss of their reader, and files for texts from options or standard input."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO


class Lasting:
    """A standard stream that discards output instead of failing when its reader is gone or its device is full.

    Otherwise, a progress bar on a closed pipe would stop a training run.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or discard it if the stream fails; returns the number of characters."""
        with self._silenced():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; failures are ignored."""
        with self._silenced():
            self._stream.flush()

    @contextlib.contextmanager
    def _silenced(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            silence(self._stream)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Let the standard streams accept any character, and standard error survive the loss of its reader."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stderr(Lasting(sys.stderr)):
        yield


def silence(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that later writes, and the flush at exit, do not fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def write_data(text: str) -> None:
    """Write rows to standard output, in UTF-8 regardless of the console's encoding unless it is a terminal."""
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))


def save_input(folder: Path) -> Path:
    """Save standard input to a file that can be read repeatedly, with the suffix of its format (JSONL or CSV)."""
    content = sys.stdin.buffer.read()
    path = folder / ("input.jsonl" if content.lstrip().startswith(b"{") else "input.csv")
    path.write_bytes(content)
    return path


def save_texts(texts: Sequence[str], folder: Path) -> Path:
    """Save texts from the command line as rows of a file."""
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
