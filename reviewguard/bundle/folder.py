"""Read and write model folders: verified against their manifest, and replaced atomically."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors import SafetensorError

from reviewguard import files
from reviewguard.bundle.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from reviewguard.errors import BundleError, IntegrityError


@dataclass(frozen=True)
class Bundle:
    """A folder whose files have been verified against its manifest."""

    folder: Path
    manifest: Manifest

    def __contains__(self, name: object) -> bool:
        return name in self.manifest.files

    def path(self, name: str) -> Path:
        """Path of a listed file.

        Raises:
            BundleError: If the bundle has no such file.
        """
        if name not in self:
            raise BundleError(f"{self.folder} has no {name}; it holds {', '.join(sorted(self.manifest.files))}")
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Contents of a listed file."""
        return self.path(name).read_bytes()


@contextmanager
def well_formed(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading tensors of a file into `BundleError`.

    Args:
        name: Of the file.

    Raises:
        BundleError: If it is no safetensors file, lacks a tensor, or a `ValueError` says that one is wrong.
    """
    try:
        yield
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{name} is malformed: {error}") from error


def is_bundle(folder: Path) -> bool:
    """Whether a folder, or what a killed save left of it, holds a bundle."""
    return (_whole(folder) / MANIFEST).is_file()


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest and verify every file that it lists.

    Loading while another process replaces the bundle gives the old one or the new one.

    Raises:
        BundleError: If the folder holds no bundle or the manifest is malformed.
        FormatVersionError: If the format is newer than this reviewguard.
        IntegrityError: If a file is missing or altered.
    """
    try:
        return _open(_whole(folder))
    except BundleError:
        # A writer may have swapped the folder between the manifest and its files; it does not do so twice in a row.
        return _open(_whole(folder))


def _open(folder: Path) -> Bundle:
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        _verify(folder / name, entry)
    return Bundle(folder, manifest)


def write_bundle(
    target: Path,
    manifest: Manifest,
    contents: Mapping[str, bytes | Path],
    check: Callable[[Bundle], None] = lambda written: None,
) -> None:
    """Write a bundle, replacing one that is already there.

    The new folder is written and synced beside the target, then takes its place by renaming. A process killed at any
    moment leaves a whole bundle: the old one or the new one (`open_bundle` finds the old one where it was set aside). Under
    torchrun only the first process writes.

    Args:
        target: The folder.
        manifest: Its `files` are filled in here.
        contents: Contents by name, as bytes or as the path of a file to copy; a copied file that `manifest` lists already must
            still be the one listed.
        check: Called with the bundle before it takes its place; if it raises, what was there before stays.

    Raises:
        IntegrityError: If it is not.
        BundleError: If the target exists and is something other than a bundle, or cannot be written.
    """
    if not files.is_main_process():
        return
    target = files.expanded(target).resolve()
    check_target(target)
    staging, aside = target.parent / f".{target.name}.new", _aside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.exclusive(target):
            # Under the lock, whatever lies here was left by a process that died.
            shutil.rmtree(staging, ignore_errors=True)
            try:
                entries = {name: _put(staging, name, content) for name, content in sorted(contents.items())}
                copied = [name for name, content in contents.items() if isinstance(content, Path)]
                if altered := [name for name in copied if manifest.files.get(name, entries[name]) != entries[name]]:
                    raise IntegrityError(f"{', '.join(altered)} changed on disk since this model was loaded; load it again")
                manifest = msgspec.structs.replace(manifest, files=entries)
                _put(staging, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
                for folder in (path for path in (staging, *staging.rglob("*")) if path.is_dir()):
                    files.sync_folder(folder)
                check(Bundle(staging, manifest))
                if target.exists():
                    shutil.rmtree(aside, ignore_errors=True)
                    os.rename(target, aside)
                os.rename(staging, target)
                files.sync_folder(target.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error}") from error


def check_target(target: Path, never: str = "") -> None:
    """See that a bundle may be written to a folder: that nothing there would be lost but an older bundle.

    Args:
        target: The folder.
        never: Name of a file, or the beginning of one, that an older bundle there may not have, as what is written could not
            take its place; empty: any may be there.

    Raises:
        BundleError: Naming what is in the way.
    """
    target = files.expanded(target)
    if not target.exists():
        return
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()} if target.is_dir() else {"."}
    try:
        listed = msgspec.json.decode((target / MANIFEST).read_bytes(), type=Manifest).files.keys() | {MANIFEST}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        listed = set()
    if foreign := sorted(found - listed):
        raise BundleError(
            f"{target} exists and holds what is no part of a model of reviewguard, such as {foreign[0]!r}; it is left alone. "
            "Choose another folder"
        )
    if never and (lost := sorted(name for name in listed if name.startswith(never))):
        raise BundleError(
            f"{target} holds a model with {lost[0]}, which what is to be written does not have: it would be lost. Choose another "
            "folder"
        )


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _whole(folder: Path) -> Path:
    # Between its two renames `write_bundle` keeps the old bundle aside; a kill in between leaves it there.
    folder = folder.resolve()
    return _aside(folder) if not folder.exists() and _aside(folder).exists() else folder


def _put(root: Path, name: str, content: bytes | Path) -> FileEntry:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    files.create(path, content)
    return FileEntry(path.stat().st_size, files.sha256(path))


def _verify(path: Path, entry: FileEntry) -> None:
    try:
        state = path.stat()
        size = state.st_size if stat.S_ISREG(state.st_mode) else -1
        digest = files.sha256(path) if size == entry.size else "not computed"
    except OSError as error:
        raise IntegrityError(f"{path} is listed in the manifest and cannot be read: {error.strerror}; fetch it again") from error
    if (size, digest) != (entry.size, entry.sha256):
        raise IntegrityError(
            f"{path} is not the file that was saved: expected {entry.size} bytes with sha256 {entry.sha256}, "
            f"got {size} bytes with sha256 {digest}; fetch or save the model again"
        )
