"""The folder that a trained model is: layout, manifest, hashes, and writes that a crash cannot tear.

- `reviewguard.json`: the manifest, written last: what the model is and the sha256 of every other file
- `config.json`: Hugging Face style: id2label, label2id, problem_type
- `tokenizer.json`, `tokenizer_config.json`
- `head.safetensors`: the head, for every backend
- `ngrams.safetensors`: scores of hashed n-grams and of their variety, where a bag of them stands beside the encoder
- `adapter/`: low-rank adapters, in PEFT's format
- `encoder/`: encoder weights, only where they cannot be fetched again: fine-tuned, merged, or from a local folder
- `onnx/model.onnx`: an export: one graph from token ids to logits; then the four above it are not there
- `onnx/model.onnx_data`: its weights, where they exceed the two gibibytes that one file may have
- `onnx/model_quantized.onnx`: the same graph in int8, if it was asked for
- `references.safetensors`: embeddings of validation texts of the negative class, by which an export is adapted
- `adaptation.safetensors`: what adapting adds to the log-odds, if the model was adapted
- `export_report.json`: how the graphs compare with torch
- `baseline.json`, `baseline.safetensors`: the bag of words that every result is shown beside
- `trained_on.safetensors`: hashes of the training texts, so that `evaluate` can tell rows that the model has seen
- `validation.safetensors`: logits and class indices of the validation rows, which decisions can be set on
- `split.csv`: which text was in train, validation and test, by sha256
- `README.md`: the model card

No file is a pickle, and none is executed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import msgspec
from safetensors import SafetensorError

from reviewguard import files
from reviewguard.config import Normalization
from reviewguard.data.labels import LabelType, restored
from reviewguard.decision import Decision
from reviewguard.errors import BundleError, FormatVersionError, IntegrityError
from reviewguard.windows import Windows

MANIFEST: Final = "reviewguard.json"
VALIDATION: Final = "validation.safetensors"
#: What only models of torch have, and what only those with adapters have: no export and no merged model gives it back.
HEAD: Final = "head.safetensors"
ADAPTER: Final = "adapter/"
FORMAT_VERSION: Final = 1
_MAX_MANIFEST_BYTES: Final = 16 * 2**20


class FileEntry(msgspec.Struct, frozen=True):
    """Size in bytes and sha256 of a file of the bundle."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a trained model is, apart from its weights.

    Attributes:
        format_version: Of this layout.
        reviewguard_version: That wrote the bundle.
        classes: Labels in the order of the logits, as strings.
        label_type: What the labels were before they became strings, and are again where Python asks for them.
        positive: The class that binary metrics are about; None with three classes or more.
        normalization: Name of the text normalisation (`reviewguard.data.normalize`).
        max_length: Tokens read of a text.
        head: Kind of head (`reviewguard.nn.heads`).
        recipe: The settings it was trained with, the encoder's hash filled in.
        training: Training report (`reviewguard.evaluation.report.TrainingReport`) as plain data; None after `fit`.
        decision: How logits are read: temperature, operating point, abstention.
        windows: How a text of more than `max_length` tokens is read; None: its beginning only.
        merged: What merging the adapters changed (`reviewguard.export.merge.MergeReport`) as plain data; None where none were.
        max_fertility: Pieces a word (`reviewguard.tokens.Encoded`) above which a text is unfamiliar; None: none is.
        min_tokens: Tokens, special ones included, below which it is unfamiliar.
        data_sha256: Of the training rows, whatever their order: sha256 over the sorted lines "sha256 of the text, tab, label".
        files: Every other file of the folder.
    """

    format_version: int
    reviewguard_version: str
    classes: Annotated[list[str], msgspec.Meta(min_length=2)]
    positive: str | None
    normalization: Normalization
    max_length: Annotated[int, msgspec.Meta(ge=1)]
    head: str
    recipe: dict[str, Any]
    training: dict[str, Any] | None
    data_sha256: str
    label_type: LabelType = "str"
    max_fertility: float | None = None
    min_tokens: int = 0
    decision: Decision = Decision()
    windows: Windows | None = None
    merged: dict[str, Any] | None = None
    files: dict[str, FileEntry] = {}

    @property
    def text_column(self) -> str:
        """The column of texts that the model was trained on by name; empty: it was detected, and is detected again."""
        return str(self.recipe.get("data", {}).get("text", ""))


@dataclass(frozen=True)
class Bundle:
    """A folder whose files have been verified against its manifest."""

    folder: Path
    manifest: Manifest

    def __contains__(self, name: str) -> bool:
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


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder whose other files may not be there yet.

    Raises:
        BundleError: If there is none, or it is malformed.
        FormatVersionError: If the format is newer than this reviewguard.
    """
    try:
        if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{folder / MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes; that is no manifest")
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} holds no model of reviewguard: cannot read {MANIFEST} ({error.strerror})") from error
    try:
        version = msgspec.json.decode(raw, type=dict[str, Any]).get("format_version")
        if version != FORMAT_VERSION:
            raise FormatVersionError(
                f"{folder} is in format {version!r}; this reviewguard reads format {FORMAT_VERSION}. "
                "If it was written by a newer release, run: pip install --upgrade reviewguard"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: {error}") from error
    if len(set(manifest.classes)) < len(manifest.classes) or manifest.positive not in (None, *manifest.classes):
        raise BundleError(f"{folder / MANIFEST} is malformed: classes {manifest.classes}, positive {manifest.positive!r}")
    try:
        restored(manifest.classes, manifest.label_type)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: classes that are no {manifest.label_type}: {error}") from error
    if not manifest.decision.fits(len(manifest.classes), manifest.positive):
        raise BundleError(f"{folder / MANIFEST} is malformed: a decision that does not fit its {len(manifest.classes)} classes")
    if (windows := manifest.windows) is not None and (
        2 * windows.overlap > manifest.max_length or (windows.rule == "max" and manifest.positive is None)
    ):
        raise BundleError(
            f"{folder / MANIFEST} is malformed: windows that do not fit {manifest.max_length} tokens and its classes"
        )
    for name in manifest.files:
        _check_name(name, folder)
    return manifest


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


def _check_name(name: str, folder: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & set("\\:\0") or name == MANIFEST:
        raise BundleError(f"{folder / MANIFEST} lists {name!r}, which is not a plain path inside the folder")


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
