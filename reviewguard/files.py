"""Writing files so that a crash cannot tear them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


def is_main_process() -> bool:
    """Whether this process writes: of those that torchrun starts, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def cache_folder() -> Path:
    """Where to keep what can be made again: `$REVIEWGUARD_CACHE`, else the user's cache folder."""
    if folder := os.environ.get("REVIEWGUARD_CACHE"):
        return Path(folder)
    # The base install keeps nothing, and has no platformdirs.
    import platformdirs

    return Path(platformdirs.user_cache_dir("reviewguard"))


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` resolved, where it stands for a home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails where there is no such home


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def create(path: Path, content: bytes | Path) -> None:
    """Write a new file from bytes or from another file, and sync it to disk."""
    with open(path, "xb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with open(content, "rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; on return it is on disk. A killed writer leaves a stray `*.tmp` at most."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    create(temporary, content)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, so that a renaming in it survives a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; its renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path, timeout: float = -1) -> Iterator[None]:
    """Keep other processes from writing a path meanwhile.

    Args:
        path: What is written; a hidden lock file stands beside it as long as it is.
        timeout: Seconds to wait for another process; negative: for ever.

    Raises:
        filelock.Timeout: If another process held on to it for longer.
    """
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock).acquire(timeout=timeout):
        try:
            yield
        finally:
            # Removed while it is held: whoever waits for it notices that its file is gone, and takes a new one.
            # (Windows does not let go of an open file; there it stays.)
            with contextlib.suppress(OSError):
                lock.unlink()
