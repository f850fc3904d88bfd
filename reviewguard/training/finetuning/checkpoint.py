"""Checkpoints that are verified before anything goes on from them, and what to do when one is not whole.

```
checkpoint-120/
  weights.safetensors      the trainable parameters, by name
  optimizer.safetensors    the optimizer's state, by parameter name
  trainer_state.json       position, schedule and log, as transformers' TrainerState
  random-0.safetensors     the random generators of each process
  manifest.json            what was trained on what, and size and sha256 of every other file. Written last
```

A checkpoint without its manifest was not finished, and one with a file that does not match it is damaged: neither is read. A file
that is not there costs what it held: without `optimizer.safetensors` the optimizer starts fresh, without `trainer_state.json` the
schedule does too. No file is a pickle.
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
from reviewguard.training.history import Resumption, Rung

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "trainer_state.json"  # the name that transformers reads
_NAME: Final = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training run keeps its checkpoints, and whether it goes on from them.

    Attributes:
        folder: Of the run; None: no checkpoints.
        resume: Go on from the newest usable checkpoint; "if-possible": or begin anew where there is none.
    """

    folder: Path | None = None
    resume: bool | Literal["if-possible"] = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a run trains, and on what: a checkpoint serves only the job that it was made in.

    Attributes:
        base: Identity of the frozen weights below: sha256 and quantisation.
        trainable: Shape of each trainable parameter by name.
        rows: sha256 over the encoded training rows and labels, in order.
        order: What decides which of them a step sees: seed and batch size.
    """

    base: str
    trainable: dict[str, list[int]]
    rows: str
    order: str


class CheckpointManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a checkpoint's `manifest.json`.

    Attributes:
        step: Optimizer steps done.
        job: See `Job`.
        processes: Processes that trained together.
        optimizer: Class of the optimizer.
        best_step: Step of the best validation F1 so far; None without one.
        learning_rate: At this step.
        resumed: Each time that the run had gone on from a checkpoint.
        versions: Of the packages that wrote it.
        files: Every other file.
        sha256: Of this manifest, as it is with this field left empty.
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
        """What `sha256` must be."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, sha256=""))).hexdigest()


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run begins.

    Attributes:
        folder: The checkpoint; None: from the start.
        manifest: Its manifest.
        rung: How much of it can be restored.
        lost: What cannot, and why; newer checkpoints that were passed over included.
    """

    folder: Path | None
    manifest: CheckpointManifest | None
    rung: Rung
    lost: list[str]


def path_of(run: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run / f"checkpoint-{step}"


def generators_of(rank: int) -> str:
    """The file of a process's random generators."""
    return f"random-{rank}.safetensors"


def listed(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first, whole or not."""
    found = {int(match[1]): path for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found, reverse=True)]


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Add files to a checkpoint and sync them; it counts only once `seal` has written its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.replace(folder / name, content)


def seal(folder: Path, manifest: CheckpointManifest) -> None:
    """Write the manifest over the files that are there: the checkpoint is whole."""
    entries = {path.name: FileEntry(path.stat().st_size, files.sha256(path)) for path in sorted(folder.iterdir())}
    manifest = msgspec.structs.replace(manifest, files=entries)
    files.replace(folder / MANIFEST, msgspec.json.encode(msgspec.structs.replace(manifest, sha256=manifest.digest())))


def unseal(folder: Path) -> None:
    """Remove a checkpoint, manifest first, so that a kill leaves nothing that looks whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def verify(folder: Path) -> CheckpointManifest:
    """Read a checkpoint's manifest and check every file that is there against it.

    Raises:
        CheckpointError: If it is not whole, or damaged.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=CheckpointManifest)
    except OSError as error:
        raise CheckpointError(f"{folder.name} is incomplete: it has no readable {MANIFEST}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} is malformed ({error})") from error
    if manifest.sha256 != manifest.digest():
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} is not what was written")
    for name, entry in manifest.files.items():
        path = folder / name
        if os.sep in name or not path.is_file():
            continue
        try:
            whole = path.stat().st_size == entry.size and files.sha256(path) == entry.sha256
        except OSError as error:
            raise CheckpointError(f"{folder.name} is damaged: {name} cannot be read ({error.strerror})") from error
        if not whole:
            raise CheckpointError(f"{folder.name} is damaged: {name} is not the file that was written")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder.name} is damaged: {WEIGHTS} is missing")
    return manifest


def find_start(run: Path, job: Job, *, processes: int, optimizer: str, may_restart: bool) -> Start:
    """Go down the ladder: from which checkpoint, and with how much of its state, this job can go on.

    Args:
        run: The folder of the run.
        job: What is to be trained now.
        processes: Processes that train together now.
        optimizer: Class of the optimizer now.
        may_restart: Whether to begin anew where no checkpoint will do.

    Raises:
        CheckpointError: If none will do, with the reason for each; or if other parameters are to be trained than were.
    """
    passed: list[str] = []
    for folder in listed(run):
        try:
            manifest = verify(folder)
            _require_same(manifest.job, job, folder)
        except CheckpointError as error:
            passed.append(str(error))
            continue
        rung, lost = _rung(folder, manifest, job, processes, optimizer)
        return Start(folder=folder, manifest=manifest, rung=rung, lost=[*passed, *lost])
    if may_restart:
        return Start(folder=None, manifest=None, rung="from the start", lost=passed or ["no checkpoint was there"])
    reasons = "; ".join(passed) or "it holds no checkpoint"
    raise CheckpointError(
        f"cannot resume from {run}: {reasons}. To begin anew where that is so, pass resume='if-possible' (command line: "
        "--resume-if-possible)"
    )


def _require_same(saved: Job, wanted: Job, folder: Path) -> None:
    if saved.base != wanted.base:
        raise CheckpointError(f"{folder.name} was trained on other base weights ({saved.base}, now {wanted.base})")
    if saved.trainable != wanted.trainable:
        names = saved.trainable.keys() ^ wanted.trainable.keys()
        odd = min(names) if names else next(n for n in saved.trainable if saved.trainable[n] != wanted.trainable[n])
        counts = [sum(map(math.prod, of.trainable.values())) for of in (saved, wanted)]
        raise CheckpointError(
            f"{folder.name} trained {counts[0]:,} parameters and the settings now ask for {counts[1]:,}: {odd} differs. Set "
            "adapter and lora as they were, or give another run_dir"
        )


def _rung(folder: Path, manifest: CheckpointManifest, job: Job, processes: int, optimizer: str) -> tuple[Rung, list[str]]:
    if not (folder / STATE).is_file():
        return "weights only", [f"optimizer, schedule and position: {folder.name} has no {STATE}"]
    if manifest.job.rows != job.rows:
        return "weights only", ["optimizer, schedule and position: the training rows are others"]
    if manifest.job.order != job.order:
        return "weights only", [f"optimizer, schedule and position: {manifest.job.order}, now {job.order}"]
    lost = []
    if absent := sum(not (folder / generators_of(rank)).is_file() for rank in range(processes)):
        # Generators are per process; dropout of those without follows the seed instead.
        lost.append(f"random state of {absent} of {processes} process(es): {folder.name} has none for them")
    if not (folder / OPTIMIZER).is_file():
        return "weights and schedule", [f"optimizer state: {folder.name} has no {OPTIMIZER}", *lost]
    if manifest.optimizer != optimizer:
        return "weights and schedule", [f"optimizer state: {manifest.optimizer}, now {optimizer}", *lost]
    return "full state", lost


def settle(run: Path, step: int, keep: Literal["none", "last", "all"]) -> float:
    """Remove what a run that succeeded at `step` needs no more; the MiB of the checkpoints that stay."""
    if keep == "none":
        for folder in listed(run):
            unseal(folder)
    elif keep == "last":
        rotate(run, step, keep=1)
    return sum(path.stat().st_size for folder in listed(run) for path in folder.iterdir()) / 2**20


def rotate(run: Path, step: int, keep: int = 2) -> None:
    """Remove all but the newest checkpoints up to that of `step`, just written, and the best as of each of them.

    Those of later steps are what the run went back behind, or what another job left: the run would lose its own to them.
    """
    kept: set[Path] = set()
    for folder in listed(run):
        if int(folder.name.rpartition("-")[2]) > step:
            continue
        try:
            manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=CheckpointManifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        kept.add(folder)
        if manifest.best_step is not None:
            kept.add(path_of(run, manifest.best_step))
        keep -= 1
        if keep == 0:
            break
    for folder in listed(run):
        if folder not in kept:
            unseal(folder)
