"""The console: streams that outlive whoever reads them, and what was typed or piped in."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO


class Lasting:
    """A standard stream that falls silent, instead of failing, once nobody reads it or its device is full.

    What a command does may not depend on who watches: a progress bar on a closed pipe would end a training otherwise.
    """

    def __init__(self, stream: TextIO) -> None:
        """Take the stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written; the number of characters given."""
        with self._silenced():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
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
    """Make the standard streams take any character, and standard error outlive its reader."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stderr(Lasting(sys.stderr)):
        yield


def silence(stream: TextIO) -> None:
    """Send what is still written to a stream nowhere, so that nothing fails at the end of the process either."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def write_data(text: str) -> None:
    """Write rows to standard output: as UTF-8, whatever the console's encoding, unless it is a terminal."""
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))


def save_input(folder: Path) -> Path:
    """Keep standard input in a file, which can be read more than once; the file's name tells JSONL from CSV."""
    content = sys.stdin.buffer.read()
    path = folder / ("input.jsonl" if content.lstrip().startswith(b"{") else "input.csv")
    path.write_bytes(content)
    return path


def save_texts(texts: Sequence[str], folder: Path) -> Path:
    """Keep texts that were typed as rows."""
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
