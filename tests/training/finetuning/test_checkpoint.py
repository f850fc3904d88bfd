"""Checkpoint folders: what counts as whole, and every rung of the ladder that a resume goes down."""

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
    """A sealed checkpoint with every file that training writes."""
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
    """Invert the bits of one byte; the size stays."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def steps(run: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    found = []
    for folder in checkpoint.listed(run):
        checkpoint.verify(folder)
        found.append(int(folder.name.removeprefix("checkpoint-")))
    return sorted(found)


# What is whole


def test_a_sealed_checkpoint_is_verified_and_lists_every_other_file(tmp_path: Path) -> None:
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


def test_without_its_manifest_a_checkpoint_is_incomplete(tmp_path: Path) -> None:
    folder = checkpoint.path_of(tmp_path, 5)
    checkpoint.write(folder, {checkpoint.WEIGHTS: b"weights"})
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is incomplete: it has no readable manifest\.json"):
        checkpoint.verify(folder)


MALFORMED = [b"", b"{", b"[]", b'{"step": 5}', b"\xff\xfe", b'{"step": "five"}', b'{"step": 5, "optimizer": "\x8c"}']


@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_manifest_is_damage(tmp_path: Path, content: bytes) -> None:
    folder = make(tmp_path, 5)
    (folder / checkpoint.MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged: manifest\.json is malformed"):
        checkpoint.verify(folder)


@pytest.mark.parametrize(
    "altered", [(b'"step":5', b'"step":6'), (b"seed 42", b"seed 43"), (b'"best_step":null', b'"best_step":1')]
)
def test_an_altered_manifest_is_damage(tmp_path: Path, altered: tuple[bytes, bytes]) -> None:
    path = make(tmp_path, 5) / checkpoint.MANIFEST
    content = path.read_bytes()
    path.write_bytes(content.replace(*altered))
    assert path.read_bytes() != content
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged: manifest\.json is not what was written"):
        checkpoint.verify(path.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_byte_in_any_file_is_damage(tmp_path: Path, name: str, position: int) -> None:
    folder = make(tmp_path, 5)
    flip(folder / name, position)
    with pytest.raises(CheckpointError, match=f"checkpoint-5 is damaged: {name} is not the file that was written"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 3])
def test_a_truncated_file_is_damage(tmp_path: Path, name: str, left: int) -> None:
    folder = make(tmp_path, 5)
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(CheckpointError, match=f"{name} is not the file that was written"):
        checkpoint.verify(folder)


def test_a_file_that_grew_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    with open(folder / checkpoint.OPTIMIZER, "ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="is not the file that was written"):
        checkpoint.verify(folder)


def test_without_weights_nothing_is_worth_restoring(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    (folder / checkpoint.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_without_another_file_a_checkpoint_is_still_good_for_something(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path, 5)
    (folder / name).unlink()
    assert checkpoint.verify(folder).step == 5


def test_writing_again_over_a_sealed_checkpoint_breaks_its_seal(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    checkpoint.write(folder, {checkpoint.WEIGHTS: save({"a.weight": torch.ones(4, 3)})})
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify(folder)


def test_unsealing_removes_the_folder_and_does_not_mind_that_it_is_gone(tmp_path: Path) -> None:
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


# The ladder


def test_the_same_job_goes_on_with_full_state(tmp_path: Path) -> None:
    make(tmp_path, 5)
    newest = make(tmp_path, 12)
    found = start(tmp_path)
    assert (found.folder, found.rung, found.lost) == (newest, "full state", [])
    assert found.manifest == checkpoint.verify(newest)


def test_without_optimizer_weights_and_schedule_remain(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.OPTIMIZER).unlink()
    found = start(tmp_path)
    assert found.rung == "weights and schedule"
    assert found.lost == ["optimizer state: checkpoint-5 has no optimizer.safetensors"]


def test_with_another_optimizer_weights_and_schedule_remain(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, optimizer="paged_adamw_8bit")
    assert found.rung == "weights and schedule"
    assert found.lost == ["optimizer state: adamw_torch, now paged_adamw_8bit"]


def test_without_trainer_state_the_weights_remain(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.STATE).unlink()
    found = start(tmp_path)
    assert found.rung == "weights only"
    assert found.lost == ["optimizer, schedule and position: checkpoint-5 has no trainer_state.json"]


def test_on_other_rows_the_weights_remain(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, job=other(rows="r2"))
    assert found.rung == "weights only"
    assert found.lost == ["optimizer, schedule and position: the training rows are others"]


def test_with_other_steps_an_epoch_the_weights_remain(tmp_path: Path) -> None:
    make(tmp_path, 5)
    found = start(tmp_path, job=other(order="seed 7, 16 rows a step"))
    assert found.rung == "weights only"
    assert found.lost == ["optimizer, schedule and position: seed 42, 16 rows a step, now seed 7, 16 rows a step"]


def test_more_processes_than_before_have_no_random_state(tmp_path: Path) -> None:
    make(tmp_path, 5, processes=2)
    found = start(tmp_path, processes=4)
    assert found.rung == "full state"
    (lost,) = found.lost
    assert lost == "random state of 2 of 4 process(es): checkpoint-5 has none for them"


def test_fewer_processes_than_before_take_theirs(tmp_path: Path) -> None:
    make(tmp_path, 5, processes=2)
    found = start(tmp_path, processes=1)
    assert (found.rung, found.lost) == ("full state", [])


def test_a_missing_random_state_is_named(tmp_path: Path) -> None:
    """Else a run would claim to go on as if it had never stopped, with other dropout."""
    (make(tmp_path, 5) / "random-0.safetensors").unlink()
    found = start(tmp_path)
    assert found.rung == "full state"
    (lost,) = found.lost
    assert lost.startswith("random state of 1 of 1 process(es)")


def test_every_loss_is_named_at_once(tmp_path: Path) -> None:
    (make(tmp_path, 5) / checkpoint.OPTIMIZER).unlink()
    flip(make(tmp_path, 8) / checkpoint.WEIGHTS)
    found = start(tmp_path, processes=2)
    assert found.rung == "weights and schedule"
    damaged, optimizer, random = found.lost
    assert damaged.startswith("checkpoint-8 is damaged")
    assert optimizer.startswith("optimizer state")
    assert random.startswith("random state of 1 of 2 process(es)")


@pytest.mark.parametrize("name", FILES)
def test_damage_to_the_newest_leads_to_the_one_before(tmp_path: Path, name: str) -> None:
    before = make(tmp_path, 5)
    flip(make(tmp_path, 10) / name)
    found = start(tmp_path)
    assert (found.folder, found.rung) == (before, "full state")
    assert found.lost == [f"checkpoint-10 is damaged: {name} is not the file that was written"]


def test_several_damaged_ones_in_a_row_are_all_passed_over(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    flip(make(tmp_path, 10) / checkpoint.OPTIMIZER)
    (make(tmp_path, 15) / checkpoint.MANIFEST).write_bytes(b"{")
    (make(tmp_path, 20) / checkpoint.MANIFEST).unlink()
    (make(tmp_path, 25) / checkpoint.WEIGHTS).unlink()
    found = start(tmp_path)
    assert (found.folder, found.rung) == (good, "full state")
    assert [text.split(":")[0] for text in found.lost] == [
        "checkpoint-25 is damaged",
        "checkpoint-20 is incomplete",
        "checkpoint-15 is damaged",
        "checkpoint-10 is damaged",
    ]


def test_nothing_usable_is_an_error_that_names_each_reason(tmp_path: Path) -> None:
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


def test_an_empty_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it holds no checkpoint"):
        start(tmp_path)


def test_a_run_that_may_restart_does_so_and_says_why(tmp_path: Path) -> None:
    flip(make(tmp_path, 5) / checkpoint.WEIGHTS)
    make(tmp_path, 10, job=other(base="abc nf4"))
    found = start(tmp_path, may_restart=True)
    assert (found.folder, found.manifest, found.rung) == (None, None, "from the start")
    assert len(found.lost) == 2
    assert "other base weights (abc nf4, now abc fp32)" in found.lost[0]
    assert "checkpoint-5 is damaged" in found.lost[1]


def test_a_run_that_may_restart_need_not_exist(tmp_path: Path) -> None:
    found = start(tmp_path / "absent", may_restart=True)
    assert (found.rung, found.lost) == ("from the start", ["no checkpoint was there"])


def test_a_run_that_may_restart_goes_on_where_it_can(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    assert start(tmp_path, may_restart=True).folder == good


def test_other_base_weights_are_another_job(tmp_path: Path) -> None:
    make(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"checkpoint-5 was trained on other base weights \(abc fp32, now abc nf4\)"):
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
def test_other_trainable_parameters_are_named_and_counted(
    tmp_path: Path, trainable: dict[str, list[int]], count: int, odd: str
) -> None:
    make(tmp_path, 5)
    with pytest.raises(CheckpointError) as caught:
        start(tmp_path, job=other(trainable=trainable))
    assert f"checkpoint-5 trained 16 parameters and the settings now ask for {count:,}: {odd} differs" in str(caught.value)


def test_the_order_in_which_parameters_stand_is_none_of_the_job(tmp_path: Path) -> None:
    make(tmp_path, 5)
    assert start(tmp_path, job=other(trainable=dict(reversed(JOB.trainable.items())))).rung == "full state"


def test_a_newer_checkpoint_of_another_job_is_passed_over(tmp_path: Path) -> None:
    good = make(tmp_path, 5)
    make(tmp_path, 10, job=other(base="other fp32"))
    found = start(tmp_path)
    assert found.folder == good
    assert "other base weights" in found.lost[0]


# Rotation


def test_rotation_keeps_the_two_newest(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        make(tmp_path, step)
    checkpoint.rotate(tmp_path, 20)
    assert steps(tmp_path) == [15, 20]


def test_rotation_keeps_the_best_as_of_each_of_the_two(tmp_path: Path) -> None:
    """The older of them may be the one that a resume goes on from, and it must find its best."""
    make(tmp_path, 10, best=10)
    make(tmp_path, 20, best=10)
    make(tmp_path, 25, best=10)
    make(tmp_path, 30, best=30)
    checkpoint.rotate(tmp_path, 30)
    assert steps(tmp_path) == [10, 25, 30]
    make(tmp_path, 35, best=30)
    checkpoint.rotate(tmp_path, 35)
    assert steps(tmp_path) == [30, 35]


def test_rotation_removes_what_is_not_whole_and_does_not_count_it(tmp_path: Path) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10)
    (make(tmp_path, 15) / checkpoint.MANIFEST).unlink()
    (make(tmp_path, 20) / checkpoint.MANIFEST).write_bytes(b"{")
    flip(make(tmp_path, 22) / checkpoint.MANIFEST, 20)
    make(tmp_path, 25)
    checkpoint.rotate(tmp_path, 25)
    assert steps(tmp_path) == [10, 25]


def test_what_is_newer_than_the_checkpoint_just_written_is_of_a_timeline_that_was_left(tmp_path: Path) -> None:
    """A run that went back, or began anew, must not lose its own checkpoints to those that it passed over."""
    flip(make(tmp_path, 42, best=28) / checkpoint.WEIGHTS)
    make(tmp_path, 28, best=28, job=other(rows="r2"))
    make(tmp_path, 5)
    checkpoint.rotate(tmp_path, 5)
    assert steps(tmp_path) == [5]


def test_rotation_leaves_other_files_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}")
    for step in (5, 10, 15):
        make(tmp_path, step)
    checkpoint.rotate(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-15", "metrics.jsonl"]


def test_a_run_with_few_checkpoints_keeps_them(tmp_path: Path) -> None:
    make(tmp_path, 5)
    checkpoint.rotate(tmp_path, 5)
    assert steps(tmp_path) == [5]
