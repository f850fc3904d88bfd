"""Serialisation of the training state: round trips, and rejected inputs that change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save_file
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import get_scheduler

from reviewguard.errors import CheckpointError
from reviewguard.training.finetuning import state


class Net(nn.Module):
    """A frozen layer, layers of equal shape, and a norm, which has no weight decay."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(16, 16).requires_grad_(False)
        self.first = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.norm(self.first(self.base(x)).relu())).relu())


def make_net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def take_steps(net: Net, optimizer: Optimizer, number: int, first: int = 0) -> None:
    """Take deterministic steps, each on different data."""
    for step in range(first, first + number):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        net(x).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def one_group(net: Net, lr: float = 1e-2) -> Optimizer:
    return AdamW([parameter for _, parameter in state.trainable(net)], lr=lr)


def by_decay(net: Net, lr: float = 1e-2) -> Optimizer:
    """Two parameter groups as in Trainer; parameter indices differ from those of one group."""
    plain = [p for n, p in state.trainable(net) if n.endswith("bias") or "norm" in n]
    decayed = [p for n, p in state.trainable(net) if not (n.endswith("bias") or "norm" in n)]
    return AdamW([{"params": decayed, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 1e-2}], lr=lr)


def backwards(net: Net, lr: float = 1e-2) -> Optimizer:
    return AdamW([{"params": [p]} for _, p in reversed(list(state.trainable(net)))], lr=lr)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def snapshot(optimizer: Optimizer) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())


def assert_same_state(one: dict[str, Any], two: dict[str, Any]) -> None:
    torch.testing.assert_close(one, two, rtol=0, atol=0)


# Weights


def test_only_trained_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    net, other = make_net(0), make_net(1)
    path = write(tmp_path / "weights", state.weights(net))
    frozen = other.base.weight.clone()
    assert set(load(path.read_bytes())) == {name for name, _ in state.trainable(net)}
    state.load_weights(other, path.read_bytes(), "weights")
    for (name, parameter), (_, expected) in zip(state.trainable(other), state.trainable(net), strict=True):
        assert torch.equal(parameter, expected), name
    assert torch.equal(other.base.weight, frozen)
    assert not torch.equal(other.base.weight, net.base.weight)


def test_serialised_weights_do_not_change_with_the_model(tmp_path: Path) -> None:
    net = make_net()
    before = state.weights(net)
    content = copy.copy(before)
    take_steps(net, one_group(net), 1)
    assert before == content
    assert state.weights(net) != before


def test_weights_are_loaded_in_place(tmp_path: Path) -> None:
    net, path = make_net(1), write(tmp_path / "weights", state.weights(make_net(0)))
    identities = [id(parameter) for _, parameter in state.trainable(net)]
    state.load_weights(net, path.read_bytes(), "weights")
    assert [id(parameter) for _, parameter in state.trainable(net)] == identities
    assert all(parameter.requires_grad and parameter.is_leaf for _, parameter in state.trainable(net))


@pytest.mark.parametrize("change", ["missing", "extra", "renamed"])
def test_weights_with_other_names_are_rejected(tmp_path: Path, change: str) -> None:
    net = make_net()
    tensors = load(state.weights(make_net(1)))
    taken = tensors.pop("head.bias") if change != "extra" else torch.zeros(3)
    if change != "missing":
        tensors["head.offset"] = taken
    save_file(tensors, tmp_path / "weights")
    before = state.weights(net)
    odd = "head.offset" if change == "extra" else "head.bias"
    with pytest.raises(
        CheckpointError, match=f"contains {len(tensors)} tensors, but 8 are trained; the first difference is {odd}"
    ):
        state.load_weights(net, (tmp_path / "weights").read_bytes(), "weights")
    assert state.weights(net) == before


@pytest.mark.parametrize("shape", [(3, 16, 1), (1,), (16, 3)])
def test_weights_of_another_shape_are_rejected_and_not_broadcast(tmp_path: Path, shape: tuple[int, ...]) -> None:
    net = make_net()
    save_file({**load(state.weights(make_net(1))), "head.weight": torch.ones(shape)}, tmp_path / "weights")
    before = state.weights(net)
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        state.load_weights(net, (tmp_path / "weights").read_bytes(), "weights")
    assert state.weights(net) == before


def test_parameters_are_counted() -> None:
    net = make_net()
    assert state.count(net) == sum(parameter.numel() for parameter in net.parameters())
    assert [name for name, _ in state.trainable(net)][:2] == ["first.weight", "first.bias"]


def test_four_bit_weight_counts_by_its_original_shape() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    net = nn.Sequential(bitsandbytes.nn.Linear4bit(64, 32, quant_type="nf4", compute_dtype=torch.float32)).to("cpu")
    assert net[0].weight.numel() < 64 * 32
    assert state.count(net) == 64 * 32 + 32


# Optimizer


@pytest.mark.parametrize("after", [one_group, by_decay, backwards])
@pytest.mark.parametrize("before", [one_group, by_decay, backwards])
def test_adamw_resumes_exactly_with_other_parameter_groups(
    tmp_path: Path, before: Callable[[Net], Optimizer], after: Callable[[Net], Optimizer]
) -> None:
    """Moments are matched by name: two parameters have the same shape, so an index could mix them up unnoticed."""
    straight = make_net()
    optimizer = before(straight)
    take_steps(straight, optimizer, 3)
    weights = write(tmp_path / "weights", state.weights(straight))
    moments = write(tmp_path / "moments", state.optimizer(straight, optimizer))
    take_steps(straight, optimizer, 3, first=3)

    resumed = make_net(1)
    resumed.base.load_state_dict(straight.base.state_dict())
    state.load_weights(resumed, weights.read_bytes(), "weights")
    fresh = after(resumed)
    state.load_optimizer(resumed, fresh, moments)
    take_steps(resumed, fresh, 3, first=3)
    for (name, parameter), (_, expected) in zip(state.trainable(resumed), state.trainable(straight), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-7, msg=name)


def test_without_moments_the_optimizer_diverges(tmp_path: Path) -> None:
    """Shows that the test above can fail."""
    straight = make_net()
    optimizer = one_group(straight)
    take_steps(straight, optimizer, 3)
    resumed = copy.deepcopy(straight)
    take_steps(straight, optimizer, 3, first=3)
    take_steps(resumed, one_group(resumed), 3, first=3)
    assert (straight.head.weight - resumed.head.weight).abs().max() > 1e-4


def test_optimizer_settings_remain_those_of_the_recipe(tmp_path: Path) -> None:
    net = make_net()
    optimizer = one_group(net, lr=1e-2)
    take_steps(net, optimizer, 1)
    path = write(tmp_path / "moments", state.optimizer(net, optimizer))
    fresh = AdamW(optimizer.param_groups[0]["params"], lr=5e-3, weight_decay=0.5, betas=(0.8, 0.9))
    state.load_optimizer(net, fresh, path)
    (group,) = fresh.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (5e-3, 0.5, (0.8, 0.9))


def altered(tensors: dict[str, torch.Tensor], change: str) -> dict[str, torch.Tensor]:
    if change == "one missing":
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.bias/")}
    if change == "one unknown":
        return {**tensors, "tail.bias/exp_avg": torch.zeros(3)}
    if change == "one renamed":
        return {name.replace("head.bias/", "tail.bias/"): tensor for name, tensor in tensors.items()}
    if change == "none at all":
        return {}
    name = "first.weight/exp_avg" + ("_sq" if change == "second moment" else "")
    return {**tensors, name: torch.zeros(4, 4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("one missing", "the state of 7 parameters, but 8 are trained"),
        ("one unknown", "the state of 9 parameters, but 8 are trained"),
        ("one renamed", "the state of 8 parameters, but 8 are trained"),
        ("none at all", "the state of 0 parameters, but 8 are trained"),
        ("first moment", r"\(4, 4\) for first\.weight, but the model has \(16, 16\)"),
        ("second moment", r"\(4, 4\) for first\.weight, but the model has \(16, 16\)"),
    ],
)
def test_state_of_other_parameters_is_rejected(tmp_path: Path, change: str, message: str) -> None:
    net = make_net()
    optimizer = one_group(net)
    take_steps(net, optimizer, 2)
    tensors = load(state.optimizer(net, optimizer))
    take_steps(net, optimizer, 1, first=2)
    before = snapshot(optimizer)
    save_file(altered(tensors, change), tmp_path / "moments")
    with pytest.raises(CheckpointError, match=message):
        state.load_optimizer(net, optimizer, tmp_path / "moments")
    assert_same_state(optimizer.state_dict(), before)


def eight_bit(net: Net) -> Optimizer:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    optimizer: Optimizer = bitsandbytes.optim.AdamW8bit([p for _, p in state.trainable(net)], lr=1e-2, min_8bit_size=16)
    return optimizer


def test_nested_state_of_an_eight_bit_optimizer_is_restored_exactly(tmp_path: Path) -> None:
    net = make_net()
    optimizer = eight_bit(net)
    take_steps(net, optimizer, 3)
    path = write(tmp_path / "moments", state.optimizer(net, optimizer))
    with safe_open(path, "pt") as file:
        assert any(name.count("/") > 1 for name in file.keys()), "the state is nested"  # noqa: SIM118 - not a mapping
    resumed = copy.deepcopy(net)
    fresh = eight_bit(resumed)
    state.load_optimizer(resumed, fresh, path)
    assert_same_state(fresh.state_dict()["state"], optimizer.state_dict()["state"])
    moments = fresh.state[resumed.first.weight]
    assert moments["state1"].dtype == torch.uint8
    assert moments["step"] == 3
    take_steps(net, optimizer, 3, first=3)
    take_steps(resumed, fresh, 3, first=3)
    for (name, parameter), (_, expected) in zip(state.trainable(resumed), state.trainable(net), strict=True):
        assert torch.equal(parameter, expected), name


def test_nested_state_of_another_shape_is_rejected(tmp_path: Path) -> None:
    net = make_net()
    optimizer = eight_bit(net)
    take_steps(net, optimizer, 1)
    path = write(tmp_path / "moments", state.optimizer(net, optimizer))
    with safe_open(path, "pt") as file:
        numbers, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    odd = next(name for name in tensors if name.startswith("first.weight/") and name.endswith("/state1"))
    save_file({**tensors, odd: torch.zeros(4, dtype=torch.uint8)}, path, numbers)
    before = snapshot(optimizer)
    with pytest.raises(CheckpointError, match=r"\(4,\) for first\.weight"):
        state.load_optimizer(net, optimizer, path)
    assert_same_state(optimizer.state_dict(), before)


# Schedule


@pytest.mark.parametrize("step", [0, 1, 4, 5, 6, 20, 39, 40, 41, 60])
@pytest.mark.parametrize("name", ["cosine", "linear", "constant_with_warmup"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_moved_schedule_matches_a_stepped_one(name: str, step: int) -> None:
    def make() -> tuple[Optimizer, Any]:
        optimizer = AdamW([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)], "lr": 1e-4}], lr=1e-3)
        return optimizer, get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=40)

    (walked, walking), (moved, moving) = make(), make()
    for _ in range(step):
        walking.step()
    rate = state.move_schedule(moved, moving, step)
    for _ in range(3):
        rates = [group["lr"] for group in walked.param_groups]
        assert [group["lr"] for group in moved.param_groups] == pytest.approx(rates, rel=1e-12, abs=0)
        assert moving.get_last_lr() == pytest.approx(walking.get_last_lr(), rel=1e-12, abs=0)
        assert moving.last_epoch == walking.last_epoch
        assert rate == pytest.approx(rates[0], rel=1e-12, abs=0)
        walking.step()
        moving.step()
        rate = moving.get_last_lr()[0]


def test_longer_schedule_continues_at_its_own_rate() -> None:
    """The rate is not that of a shorter schedule, which ends at 0."""
    optimizer = AdamW([torch.zeros(1)], lr=1e-3)
    short = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=20)
    assert state.move_schedule(optimizer, short, 20) == 0
    long = get_scheduler("linear", AdamW([torch.zeros(1)], lr=1e-3), num_warmup_steps=0, num_training_steps=40)
    assert state.move_schedule(long.optimizer, long, 20) == pytest.approx(5e-4)


# Random generators


def test_random_generators_are_restored(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.rand(7)
        path = write(tmp_path / "random-0.safetensors", state.generators())
        expected = [torch.rand(5), torch.nn.functional.dropout(torch.ones(50))]
        torch.manual_seed(4)
        state.load_generators(path)
        assert torch.equal(torch.rand(5), expected[0])
        assert torch.equal(torch.nn.functional.dropout(torch.ones(50)), expected[1])


def test_missing_generator_state_changes_nothing(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    state.load_generators(tmp_path / "random-3.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_gather_in_a_single_process() -> None:
    assert state.gather(b"mine") == [b"mine"]
