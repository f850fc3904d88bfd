"""Checkpoints: writing, verification, and choosing the one to resume from.

```
checkpoint-120/
  weights.safetensors      the trainable parameters, by name
  optimizer.safetensors    the optimizer's state, by parameter name
  trainer_state.json       position, schedule and log, as transformers' TrainerState
  random-0.safetensors     the random generators of each process
  manifest.json            the job, and size and SHA-256 of every other file; written last
```

A checkpoint without a manifest is incomplete, and one with a file that does not match the manifest is damaged; neither is read.
If a file is missing, its contents are lost: without `optimizer.safetensors`, the optimizer starts over, and without
`trainer_state.json`, so does the schedule. No file is a pickle.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from reviewguard import files
from reviewguard.bundle.manifest import FileEntry
from reviewguard.errors import CheckpointError
from reviewguard.training.history import Restored, Resumption

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "trainer_state.json"  # the name that transformers reads
_NAME: Final = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training run stores checkpoints, and whether it resumes from them.

    Attributes:
        folder: Folder of the run. None: no checkpoints.
        resume: Whether to resume from the newest usable checkpoint. "if-possible": start over if there is none.
    """

    folder: Path | None = None
    resume: bool | Literal["if-possible"] = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a training job. A checkpoint can only be resumed by the same job.

    Attributes:
        base: Identity of the base weights: SHA-256 and quantisation.
        trainable: Shape of each trainable parameter by name.
        rows: SHA-256 of the encoded training rows and labels, in order.
        order: Seed and batch size, which determine the rows of each step.
    """

    base: str
    trainable: dict[str, list[int]]
    rows: str
    order: str


class CheckpointManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a checkpoint's `manifest.json`.

    Attributes:
        step: Number of completed optimizer steps.
        job: The training job.
        processes: Number of training processes.
        optimizer: Name of the optimizer.
        best_step: Step of the best validation F1 so far. None: no validation yet.
        learning_rate: Learning rate at this step.
        resumed: Resumptions of the run so far.
        versions: Versions of the packages that wrote the checkpoint.
        files: Size and SHA-256 of every other file.
        sha256: SHA-256 of this manifest with this field empty.
    """

    step: int
    job: Job
    processes: int
    optimizer: str
    best_step: int | None
    learning_rate: float
    resumed: list[Resumption]
    versions: dict[str, str]
    files: dict[str, FileEntry] = {}
    sha256: str = ""

    def digest(self) -> str:
        """Compute `sha256`."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, sha256=""))).hexdigest()


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The starting point of a run.

    Attributes:
        folder: The checkpoint. None: the run starts from the beginning.
        manifest: Manifest of the checkpoint.
        restored: How much of the state can be restored.
        lost: What cannot be restored, and why, including newer checkpoints that were skipped.
    """

    folder: Path | None
    manifest: CheckpointManifest | None
    restored: Restored
    lost: list[str]


def path_of(run: Path, step: int) -> Path:
    """Folder of the checkpoint of a step."""
    return run / f"checkpoint-{step}"


def generators_of(rank: int) -> str:
    """File name of a process's random generator states."""
    return f"random-{rank}.safetensors"


def listed(run: Path) -> list[Path]:
    """List the checkpoints of a run, newest first, including incomplete and damaged ones."""
    folders = {int(match[1]): path for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))}
    return [folders[step] for step in sorted(folders, reverse=True)]


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Add files to a checkpoint and sync them. The checkpoint is complete only after `seal`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.replace(folder / name, content)


def seal(folder: Path, manifest: CheckpointManifest) -> None:
    """Complete a checkpoint: write the manifest of its files."""
    entries = {path.name: FileEntry(path.stat().st_size, files.sha256(path)) for path in sorted(folder.iterdir())}
    manifest = msgspec.structs.replace(manifest, files=entries)
    files.replace(folder / MANIFEST, msgspec.json.encode(msgspec.structs.replace(manifest, sha256=manifest.digest())))


def unseal(folder: Path) -> None:
    """Remove a checkpoint, manifest first, so that an interruption leaves nothing that looks complete."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def verify(folder: Path) -> CheckpointManifest:
    """Read a checkpoint's manifest and verify the files that are present.

    Raises:
        CheckpointError: If the checkpoint is incomplete or damaged.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=CheckpointManifest)
    except OSError as error:
        raise CheckpointError(f"{folder.name} is incomplete: it has no readable {MANIFEST}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} is malformed ({error})") from error
    if manifest.sha256 != manifest.digest():
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} has been altered")
    for name, entry in manifest.files.items():
        path = folder / name
        if os.sep in name or not path.is_file():
            continue
        try:
            intact = path.stat().st_size == entry.size and files.sha256(path) == entry.sha256
        except OSError as error:
            raise CheckpointError(f"{folder.name} is damaged: {name} cannot be read ({error.strerror})") from error
        if not intact:
            raise CheckpointError(f"{folder.name} is damaged: {name} has been altered")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder.name} is damaged: {WEIGHTS} is missing")
    return manifest


def find_start(run: Path, job: Job, *, processes: int, optimizer: str, may_restart: bool) -> Start:
    """Find the newest checkpoint that a job can resume from, and how much of its state can be restored.

    Args:
        run: Folder of the run.
        job: The current job.
        processes: Current number of training processes.
        optimizer: Name of the current optimizer.
        may_restart: Whether to start over if no checkpoint is usable.

    Raises:
        CheckpointError: If no checkpoint is usable. The message gives the reason for each.
    """
    skipped: list[str] = []
    for folder in listed(run):
        try:
            manifest = verify(folder)
            _require_same(manifest.job, job, folder)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        restored, lost = _restored(folder, manifest, job, processes, optimizer)
        return Start(folder=folder, manifest=manifest, restored=restored, lost=[*skipped, *lost])
    if may_restart:
        return Start(folder=None, manifest=None, restored="from the start", lost=skipped or ["there was no checkpoint"])
    reasons = "; ".join(skipped) or "it contains no checkpoint"
    raise CheckpointError(
        f"cannot resume from {run}: {reasons}. To start over in this case, pass resume='if-possible' (command line: "
        "--resume-if-possible)"
    )


def _require_same(saved: Job, wanted: Job, folder: Path) -> None:
    if saved.base != wanted.base:
        raise CheckpointError(f"{folder.name} was trained on different base weights ({saved.base}, now {wanted.base})")
    if saved.trainable != wanted.trainable:
        names = saved.trainable.keys() ^ wanted.trainable.keys()
        different = min(names) if names else next(n for n in saved.trainable if saved.trainable[n] != wanted.trainable[n])
        counts = [sum(map(math.prod, job.trainable.values())) for job in (saved, wanted)]
        raise CheckpointError(
            f"{folder.name} trained {counts[0]:,} parameters, but the settings now ask for {counts[1]:,}: {different} differs. "
            "Restore the adapter and lora settings, or choose another run_dir"
        )


def _restored(folder: Path, manifest: CheckpointManifest, job: Job, processes: int, optimizer: str) -> tuple[Restored, list[str]]:
    if not (folder / STATE).is_file():
        return "weights only", [f"optimizer, schedule and position: {folder.name} has no {STATE}"]
    if manifest.job.rows != job.rows:
        return "weights only", ["optimizer, schedule and position: the training rows have changed"]
    if manifest.job.order != job.order:
        return "weights only", [f"optimizer, schedule and position: {manifest.job.order}, now {job.order}"]
    lost = []
    if absent := sum(not (folder / generators_of(rank)).is_file() for rank in range(processes)):
        # Each process has its own generators. Without saved state, its dropout depends on the seed.
        lost.append(f"random state of {absent} of {processes} process(es): not in {folder.name}")
    if not (folder / OPTIMIZER).is_file():
        return "weights and schedule", [f"optimizer state: {folder.name} has no {OPTIMIZER}", *lost]
    if manifest.optimizer != optimizer:
        return "weights and schedule", [f"optimizer state: {manifest.optimizer}, now {optimizer}", *lost]
    return "full state", lost


def settle(run: Path, step: int, keep: Literal["none", "last", "all"]) -> float:
    """Remove the checkpoints that a finished run no longer needs, and return the size of the others in MiB."""
    if keep == "none":
        for folder in listed(run):
            unseal(folder)
    elif keep == "last":
        rotate(run, step, keep=1)
    return sum(path.stat().st_size for folder in listed(run) for path in folder.iterdir()) / 2**20


def rotate(run: Path, step: int, keep: int = 2) -> None:
    """Remove all but the newest checkpoints up to the one just written at `step`, and the best checkpoint recorded in each.

    Checkpoints of later steps were skipped on a resume or belong to another job. If they counted, the run would lose its own.
    """
    retained: set[Path] = set()
    for folder in listed(run):
        if int(folder.name.rpartition("-")[2]) > step:
            continue
        try:
            manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=CheckpointManifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        retained.add(folder)
        if manifest.best_step is not None:
            retained.add(path_of(run, manifest.best_step))
        keep -= 1
        if keep == 0:
            break
    for folder in listed(run):
        if folder not in retained:
            unseal(folder)
