"""Atomic file writes, locks, hashes and paths."""

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
    """Whether this process writes files; under torchrun, only the first process does."""
    return os.environ.get("RANK", "0") == "0"


def cache_folder() -> Path:
    """The folder for cached files: `$REVIEWGUARD_CACHE`, or else the user's cache folder."""
    if folder := os.environ.get("REVIEWGUARD_CACHE"):
        return Path(folder)
    # The base install caches nothing and does not include platformdirs.
    import platformdirs

    return Path(platformdirs.user_cache_dir("reviewguard"))


def expanded(path: str | os.PathLike[str]) -> Path:
    """Expand `~` in a path if it refers to a home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails if the home does not exist


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
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
    """Write a file atomically and sync it to disk. An interruption leaves at most a stray `*.tmp` file."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    create(temporary, content)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, so that renames in it survive a power failure."""
    if os.name == "nt":  # Windows cannot open folders, and it journals renames
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold an exclusive lock on a path within the block.

    Args:
        path: Path to lock; a hidden lock file next to it exists while the lock is held.
        timeout: Seconds to wait for another process; negative: no limit.

    Raises:
        filelock.Timeout: If another process holds the lock for longer.
    """
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock).acquire(timeout=timeout):
        try:
            yield
        finally:
            # The file is removed while the lock is held; a waiting process notices this and creates a new one. Windows cannot
            # remove an open file, so there it remains.
            with contextlib.suppress(OSError):
                lock.unlink()
