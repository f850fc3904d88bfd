"""Read and write bundles, which are verified against their manifest and replaced atomically."""

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
    """A model folder whose files have been verified against its manifest."""

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
    """Convert errors in reading a file to `BundleError`.

    Args:
        name: Name of the file, for the message.

    Raises:
        BundleError: If the file is not in its format, a tensor is missing, or the block raises `ValueError` or `TypeError`.
    """
    try:
        yield
    except BundleError:  # itself a ValueError
        raise
    except (msgspec.MsgspecError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise BundleError(f"{name} is malformed: {error}") from error


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle; also true after an interrupted save that left the old bundle aside."""
    return (_whole(folder) / MANIFEST).is_file()


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest and verify every file that it lists.

    While another process replaces the bundle, either the old or the new one is loaded.

    Raises:
        BundleError: If the folder does not hold a bundle, or its manifest is malformed.
        FormatVersionError: If the format is newer than this version of reviewguard supports.
        IntegrityError: If a file is missing or has changed.
    """
    try:
        return _open(_whole(folder))
    except BundleError:
        # A writer may have replaced the folder after its manifest was read; one retry is enough.
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
    """Write a bundle, replacing an existing one.

    The new folder is written and synced next to the target and then renamed. After an interruption at any moment, a complete
    bundle exists, either the old or the new one; `open_bundle` also finds an old bundle that was set aside. Under torchrun, only
    the first process writes.

    Args:
        target: Folder to write.
        manifest: The manifest; its `files` are filled in here.
        contents: File contents by name, as bytes or as the path of a file to copy. A copied file that `manifest` already lists
            must not have changed.
        check: Function called with the new bundle before the old one is replaced; if it raises, the old bundle is kept.

    Raises:
        IntegrityError: If a copied file has changed.
        BundleError: If the target exists and is not a bundle, or cannot be written.
    """
    if not files.is_main_process():
        return
    target = files.expanded(target).resolve()
    check_target(target)
    staging, aside = target.parent / f".{target.name}.new", _aside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.exclusive(target):
            # While the lock is held, a folder at this path can only be left over from an interrupted process.
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
    """Check that a bundle may be written to a folder, so that only an older bundle is overwritten.

    Args:
        target: Folder to write.
        never: Prefix of file names that an older bundle in the folder must not contain, because the new bundle cannot replace
            them; empty: none.

    Raises:
        BundleError: If the folder holds other files; the message names one.
    """
    target = files.expanded(target)
    if not target.exists():
        return
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()} if target.is_dir() else {"."}
    try:
        listed = msgspec.json.decode((target / MANIFEST).read_bytes(), type=Manifest).files.keys() | {MANIFEST}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        listed = set()
    if foreign := sorted(names - listed):
        raise BundleError(
            f"{target} exists and contains files that are not part of a reviewguard model, such as {foreign[0]!r}; "
            "it was not changed. Choose another folder"
        )
    if never and (lost := sorted(name for name in listed if name.startswith(never))):
        raise BundleError(
            f"{target} holds a model with {lost[0]}, which would be lost, because the new model does not contain it. "
            "Choose another folder"
        )


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _whole(folder: Path) -> Path:
    # An interruption between the two renames of `write_bundle` leaves the old bundle set aside.
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
        raise IntegrityError(f"{path} is listed in the manifest but cannot be read: {error.strerror}; fetch it again") from error
    if (size, digest) != (entry.size, entry.sha256):
        raise IntegrityError(
            f"{path} is not the file that was saved: expected {entry.size} bytes with sha256 {entry.sha256}, "
            f"got {size} bytes with sha256 {digest}; fetch or save the model again"
        )
