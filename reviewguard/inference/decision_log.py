"""The log of a server's decisions, from which `reviewguard ab` compares two models."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision.

    Attributes:
        time: Seconds since 1970, UTC.
        key: SHA-256 of the key that the request named, or of the text.
        arm: "champion" or "challenger".
        model: SHA-256 of the model.
        label: The predicted class; None if the text is empty.
        decision: The decision; None if the text is empty.
        scores: The probability of each class.
        seconds: Latency, from arrival to prediction.
        share: Share of the keys that the challenger answers.
        shadow: Whether both arms predicted the text, and the champion answered.
        text: The text, if texts are logged.
    """

    time: float
    key: str
    arm: str
    model: str
    label: str | None
    decision: str | None
    scores: dict[str, float]
    seconds: float
    share: float = 0.0
    shadow: bool = False
    text: str | None = None


def hashed(key: str) -> str:
    """The hash by which a key is logged; labels that come later are joined by it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class DecisionLog:
    """Appends entries as JSON lines to a file of its own process in a folder, so that processes never mix their lines."""

    def __init__(self, folder: Path, with_texts: bool) -> None:
        """Open the file.

        Args:
            folder: Folder of the log; created if missing.
            with_texts: Whether to write texts. Without, only hashes tell which text an entry is about.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._with_texts = with_texts
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.jsonl"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, entry: Entry) -> None:
        """Append an entry in one write, so that a crash leaves no half line in the middle."""
        if not self._with_texts:
            entry = msgspec.structs.replace(entry, text=None)
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file; everything is written already."""
        os.close(self._file)


def read(folder: Path) -> list[Entry]:
    """Read the entries of all processes, in the order of time. A last line that was cut off is left out."""
    decoder, entries = msgspec.json.Decoder(Entry), []
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_bytes().split(b"\n")
        entries += [decoder.decode(line) for line in lines[:-1]]
    return sorted(entries, key=lambda entry: entry.time)
