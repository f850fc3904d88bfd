"""Checkpoint folders: verification, what a resume restores, and rotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load, save

from reviewguard.errors import CheckpointError
from reviewguard.training.finetuning import checkpoint
from reviewguard.training.finetuning.checkpoint import CheckpointManifest, Job, Start

JOB = Job(base="abc fp32", trainable={"a.weight": [4, 3], "b.bias": [4]}, rows="r1", order="seed 42, 16 rows a step")
FILES = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE, "random-0.safetensors")


def make(run: Path, step: int, *, best: int | None = None, job: Job = JOB, processes: int = 1) -> Path:
    """Make a sealed checkpoint with all files that training writes."""
    folder = checkpoint.path_of(run, step)
    contents = {
        checkpoint.WEIGHTS: save({"a.weight": torch.full((4, 3), float(step)), "b.bias": torch.zeros(4)}),
        checkpoint.OPTIMIZER: save({"a.weight/exp_avg": torch.ones(4, 3)}),
        checkpoint.STATE: json.dumps({"global_step": step}).encode(),
    }
    contents |= {f"random-{rank}.safetensors": save({"cpu": torch.get_rng_state()}) for rank in range(processes)}
    checkpoint.write(folder, contents)
    checkpoint.seal(
        folder,
        CheckpointManifest(
            step=step,
            job=job,
            processes=processes,
            optimizer="adamw_torch",
            best_step=best,
            learning_rate=1e-3,
            resumed=[],
            versions={"torch": "2"},
        ),
    )
    return folder


def start(run: Path, *, job: Job = JOB, processes: int = 1, optimizer: str = "adamw_torch", may_restart: bool = False) -> Start:
    return checkpoint.find_start(run, job, processes=processes, optimizer=optimizer, may_restart=may_restart)


def other(**changes: Any) -> Job:
    return msgspec.structs.replace(JOB, **changes)


def flip(path: Path, position: int = -1) -> None:
    """Invert the bits of one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def steps(run: Path) -> list[int]:
    """Verify all checkpoints and return their steps."""
    verified = []
    for folder in checkpoint.listed(run):
        checkpoint.verify(folder)
        verified.append(int(folder.name.removeprefix("checkpoint-")))
    return sorted(verified)


# Verification


def test_manifest_lists_every_other_file(tmp_path: Path) -> None:
    folder = make(tmp_path, 5, best=4, processes=2)
    manifest = checkpoint.verify(folder)
    assert (manifest.step, manifest.job, manifest.best_step) == (5, JOB, 4)
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {checkpoint.MANIFEST}
    assert manifest.files[checkpoint.STATE].size == (folder / checkpoint.STATE).stat().st_size


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    for path in folder.iterdir():
        assert path.suffix in {".json", ".safetensors"}
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        else:
            load(path.read_bytes())


def test_checkpoint_without_manifest_is_incomplete(tmp_path: Path) -> None:
    folder = checkpoint.path_of(tmp_path, 5)
    checkpoint.write(folder, {checkpoint.WEIGHTS: b"weights"})
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is incomplete: it has no readable manifest\.json"):
        checkpoint.verify(folder)


MALFORMED = [b"", b"{", b"[]", b'{"step": 5}', b"\xff\xfe", b'{"step": "five"}', b'{"step": 5, "optimizer": "\x8c"}']


@pytest.mark.parametrize("content", MALFORMED)
def test_malformed_manifest_is_damage(tmp_path: Path, content: bytes) -> None:
    folder = make(tmp_path, 5)
    (folder / checkpoint.MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged: manifest\.json is malformed"):
        checkpoint.verify(folder)


@pytest.mark.parametrize(
    "altered", [(b'"step":5', b'"step":6'), (b"seed 42", b"seed 43"), (b'"best_step":null', b'"best_step":1')]
)
def test_altered_manifest_is_damage(tmp_path: Path, altered: tuple[bytes, bytes]) -> None:
    path = make(tmp_path, 5) / checkpoint.MANIFEST
    content = path.read_bytes()
    path.write_bytes(content.replace(*altered))
    assert path.read_bytes() != content
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged: manifest\.json has been altered"):
        checkpoint.verify(path.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1])
def test_flipped_byte_is_damage(tmp_path: Path, name: str, position: int) -> None:
    folder = make(tmp_path, 5)
    flip(folder / name, position)
    with pytest.raises(CheckpointError, match=f"checkpoint-5 is damaged: {name} has been altered"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 3])
def test_truncated_file_is_damage(tmp_path: Path, name: str, left: int) -> None:
    folder = make(tmp_path, 5)
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(CheckpointError, match=f"{name} has been altered"):
        checkpoint.verify(folder)


def test_extended_file_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    with open(folder / checkpoint.OPTIMIZER, "ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="has been altered"):
        checkpoint.verify(folder)


def test_checkpoint_without_weights_is_damaged(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    (folder / checkpoint.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_checkpoint_without_another_file_is_valid(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path, 5)
    (folder / name).unlink()
    assert checkpoint.verify(folder).step == 5


def test_overwriting_a_sealed_checkpoint_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    checkpoint.write(folder, {checkpoint.WEIGHTS: save({"a.weight": torch.ones(4, 3)})})
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify(folder)


def test_unseal_removes_the_folder_and_can_be_repeated(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    checkpoint.unseal(folder)
    assert not folder.exists()
    checkpoint.unseal(folder)


def test_checkpoints_are_listed_newest_first_by_number(tmp_path: Path) -> None:
    for name in (
        "checkpoint-9",
        "checkpoint-100",
        "checkpoint-20",
        "checkpoint-",
        "checkpoint-x",
        "my-checkpoint-3",
        "checkpoint-7-old",
    ):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.listed(tmp_path)] == ["checkpoint-100", "checkpoint-20", "checkpoint-9"]
    assert checkpoint.listed(tmp_path / "absent") == []


# What a resume restores


def test_same_job_resumes_with_full_state(tmp_path: Path) -> None:
    make(tmp_path, 5)
    newest = make(tmp_path, 12)
    found = start(tmp_path)
    assert (found.folder, found.restored, found.lost) == (newest, "full state", [])
    assert found.manifest == checkpoint.verify(newest)


def test_without_optimizer_weights_and_schedule_are_restored(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.OPTIMIZER).unlink()
    found = start(tmp_path)
    assert found.restored == "weights and schedule"
    assert found.lost == ["optimizer state: checkpoint-5 has no optimizer.safetensors"]


def test_with_another_optimizer_weights_and_schedule_are_restored(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, optimizer="paged_adamw_8bit")
    assert found.restored == "weights and schedule"
    assert found.lost == ["optimizer state: adamw_torch, now paged_adamw_8bit"]


def test_without_trainer_state_only_weights_are_restored(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.STATE).unlink()
    found = start(tmp_path)
    assert found.restored == "weights only"
    assert found.lost == ["optimizer, schedule and position: checkpoint-5 has no trainer_state.json"]


def test_with_other_rows_only_weights_are_restored(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, job=other(rows="r2"))
    assert found.restored == "weights only"
    assert found.lost == ["optimizer, schedule and position: the training rows have changed"]


def test_with_another_order_only_weights_are_restored(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, job=other(order="seed 7, 16 rows a step"))
    assert found.restored == "weights only"
    assert found.lost == ["optimizer, schedule and position: seed 42, 16 rows a step, now seed 7, 16 rows a step"]


def test_additional_processes_have_no_random_state(tmp_path: Path) -> None:
    make(tmp_path, 5, processes=2)
    found = start(tmp_path, processes=4)
    assert found.restored == "full state"
    (lost,) = found.lost
    assert lost == "random state of 2 of 4 process(es): not in checkpoint-5"


def test_fewer_processes_restore_their_random_state(tmp_path: Path) -> None:
    make(tmp_path, 5, processes=2)
    found = start(tmp_path, processes=1)
    assert (found.restored, found.lost) == ("full state", [])


def test_missing_random_state_is_reported(tmp_path: Path) -> None:
    """Otherwise, the run would report an exact resume, although dropout differs."""
    (make(tmp_path, 5) / "random-0.safetensors").unlink()
    found = start(tmp_path)
    assert found.restored == "full state"
    (lost,) = found.lost
    assert lost.startswith("random state of 1 of 1 process(es)")


def test_all_losses_are_reported(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.OPTIMIZER).unlink()
    flip(make(tmp_path, 8) / checkpoint.WEIGHTS)
    found = start(tmp_path, processes=2)
    assert found.restored == "weights and schedule"
    damaged, optimizer, random = found.lost
    assert damaged.startswith("checkpoint-8 is damaged")
    assert optimizer.startswith("optimizer state")
    assert random.startswith("random state of 1 of 2 process(es)")


@pytest.mark.parametrize("name", FILES)
def test_damaged_newest_checkpoint_is_skipped(tmp_path: Path, name: str) -> None:
    before = make(tmp_path, 5)
    flip(make(tmp_path, 10) / name)
    found = start(tmp_path)
    assert (found.folder, found.restored) == (before, "full state")
    assert found.lost == [f"checkpoint-10 is damaged: {name} has been altered"]


def test_several_damaged_checkpoints_are_skipped(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    flip(make(tmp_path, 10) / checkpoint.OPTIMIZER)
    (make(tmp_path, 15) / checkpoint.MANIFEST).write_bytes(b"{")
    (make(tmp_path, 20) / checkpoint.MANIFEST).unlink()
    (make(tmp_path, 25) / checkpoint.WEIGHTS).unlink()
    found = start(tmp_path)
    assert (found.folder, found.restored) == (good, "full state")
    assert [text.split(":")[0] for text in found.lost] == [
        "checkpoint-25 is damaged",
        "checkpoint-20 is incomplete",
        "checkpoint-15 is damaged",
        "checkpoint-10 is damaged",
    ]


def test_no_usable_checkpoint_is_an_error_with_all_reasons(tmp_path: Path) -> None:
    flip(make(tmp_path, 5) / checkpoint.WEIGHTS)
    (make(tmp_path, 10) / checkpoint.MANIFEST).unlink()
    with pytest.raises(CheckpointError) as caught:
        start(tmp_path)
    message = str(caught.value)
    assert message.index("checkpoint-10 is incomplete") < message.index("checkpoint-5 is damaged: weights.safetensors")
    assert str(tmp_path) in message
    assert "resume='if-possible'" in message
    assert "--resume-if-possible" in message
    assert len(checkpoint.listed(tmp_path)) == 2, "nothing is removed"


def test_empty_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it contains no checkpoint"):
        start(tmp_path)


def test_restart_reports_the_reasons(tmp_path: Path) -> None:
    flip(make(tmp_path, 5) / checkpoint.WEIGHTS)
    make(tmp_path, 10, job=other(base="abc nf4"))
    found = start(tmp_path, may_restart=True)
    assert (found.folder, found.manifest, found.restored) == (None, None, "from the start")
    assert len(found.lost) == 2
    assert "different base weights (abc nf4, now abc fp32)" in found.lost[0]
    assert "checkpoint-5 is damaged" in found.lost[1]


def test_restart_of_a_run_that_does_not_exist(tmp_path: Path) -> None:
    found = start(tmp_path / "absent", may_restart=True)
    assert (found.restored, found.lost) == ("from the start", ["there was no checkpoint"])


def test_restart_is_not_used_if_a_checkpoint_is_usable(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    assert start(tmp_path, may_restart=True).folder == good


def test_other_base_weights_are_another_job(tmp_path: Path) -> None:
    make(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"checkpoint-5 was trained on different base weights \(abc fp32, now abc nf4\)"):
        start(tmp_path, job=other(base="abc nf4"))


@pytest.mark.parametrize(
    ("trainable", "count", "odd"),
    [
        ({"a.weight": [4, 3]}, 12, "b.bias"),
        ({"a.weight": [4, 3], "b.bias": [4], "c.weight": [1000, 2]}, 2_016, "c.weight"),
        ({"a.weight": [8, 3], "b.bias": [4]}, 28, "a.weight"),
        ({"a.weight": [3, 4], "b.bias": [4]}, 16, "a.weight"),
        ({"d.weight": [16]}, 16, "a.weight"),
    ],
)
def test_different_trainable_parameters_are_reported(
    tmp_path: Path, trainable: dict[str, list[int]], count: int, odd: str
) -> None:
    make(tmp_path, 5)
    with pytest.raises(CheckpointError) as caught:
        start(tmp_path, job=other(trainable=trainable))
    assert f"checkpoint-5 trained 16 parameters, but the settings now ask for {count:,}: {odd} differs" in str(caught.value)


def test_parameter_order_is_not_part_of_the_job(tmp_path: Path) -> None:
    make(tmp_path, 5)
    assert start(tmp_path, job=other(trainable=dict(reversed(JOB.trainable.items())))).restored == "full state"


def test_newer_checkpoint_of_another_job_is_skipped(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    make(tmp_path, 10, job=other(base="other fp32"))
    found = start(tmp_path)
    assert found.folder == good
    assert "different base weights" in found.lost[0]


# Rotation


def test_rotation_keeps_the_two_newest(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        make(tmp_path, step)
    checkpoint.rotate(tmp_path, 20)
    assert steps(tmp_path) == [15, 20]


def test_rotation_keeps_the_best_of_each_of_the_two(tmp_path: Path) -> None:
    """A resume from the older one needs its best checkpoint."""
    make(tmp_path, 10, best=10)
    make(tmp_path, 20, best=10)
    make(tmp_path, 25, best=10)
    make(tmp_path, 30, best=30)
    checkpoint.rotate(tmp_path, 30)
    assert steps(tmp_path) == [10, 25, 30]
    make(tmp_path, 35, best=30)
    checkpoint.rotate(tmp_path, 35)
    assert steps(tmp_path) == [30, 35]


def test_rotation_removes_damaged_checkpoints_and_does_not_count_them(tmp_path: Path) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10)
    (make(tmp_path, 15) / checkpoint.MANIFEST).unlink()
    (make(tmp_path, 20) / checkpoint.MANIFEST).write_bytes(b"{")
    flip(make(tmp_path, 22) / checkpoint.MANIFEST, 20)
    make(tmp_path, 25)
    checkpoint.rotate(tmp_path, 25)
    assert steps(tmp_path) == [10, 25]


def test_rotation_removes_checkpoints_of_later_steps(tmp_path: Path) -> None:
    """A run that went back or started over must not lose its own checkpoints to skipped ones."""
    flip(make(tmp_path, 42, best=28) / checkpoint.WEIGHTS)
    make(tmp_path, 28, best=28, job=other(rows="r2"))
    make(tmp_path, 5)
    checkpoint.rotate(tmp_path, 5)
    assert steps(tmp_path) == [5]


def test_rotation_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    for step in (5, 10, 15):
        make(tmp_path, step)
    checkpoint.rotate(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-15", "metrics.jsonl"]


def test_rotation_keeps_few_checkpoints(tmp_path: Path) -> None:
    make(tmp_path, 5)
    checkpoint.rotate(tmp_path, 5)
    assert steps(tmp_path) == [5]
