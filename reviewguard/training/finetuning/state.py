"""The state of training as bytes, all of it by name: weights, optimizer, schedule, random generators.

Names outlast what numbers do not: another order of parameter groups, another number of processes, a sharded model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from reviewguard.errors import CheckpointError

#: What torch and bitsandbytes call the two moments.
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "state1", "state2")


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of all that is trained, in the model's order."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # after a forward pass it shows gathered copies, which the optimizer does not know
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def count(model: nn.Module) -> int:
    """Parameters in all; of a 4-bit weight the ones that it stands for, not its bytes."""
    return sum(math.prod((getattr(parameter, "quant_state", None) or parameter).shape) for parameter in model.parameters())


def weights(model: nn.Module) -> bytes:
    """The trainable parameters as safetensors. Under FSDP, every process must call it."""
    return save({name: _whole(parameter) for name, parameter in trainable(model)})


def is_sharded(model: nn.Module) -> bool:
    """Whether each process has a part of the parameters only (FSDP)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def load_weights(model: nn.Module, content: bytes, source: str) -> None:
    """Copy parameters as `weights` gives them into a model that trains exactly these.

    Raises:
        CheckpointError: If names or shapes differ; the model is unchanged then.
    """
    saved, own = load(content), dict(trainable(model))
    if saved.keys() != own.keys():
        raise CheckpointError(
            f"{source} holds {len(saved)} tensors, and {len(own)} are trained: {min(saved.keys() ^ own.keys())}"
        )
    for name, parameter in own.items():
        if saved[name].shape != parameter.shape:
            raise CheckpointError(f"{source} has {tuple(saved[name].shape)} for {name}, which is {tuple(parameter.shape)}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(_placed(saved[name], parameter))


def optimizer(model: nn.Module, optimizer: Optimizer) -> bytes:
    """An optimizer's state as safetensors, numbers in the header. Under FSDP, every process must call it."""
    raw, names = optimizer.state_dict(), _names(model, optimizer)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in raw["state"].items():
        for path, value in _flatten(entries):
            (tensors if isinstance(value, Tensor) else numbers)[f"{names[index]}/{path}"] = value
    return save({name: _whole(value) for name, value in tensors.items()}, metadata={"numbers": json.dumps(numbers)})


def load_optimizer(model: nn.Module, optimizer: Optimizer, path: Path) -> None:
    """Give an optimizer its saved state; its settings stay those of the recipe.

    Raises:
        CheckpointError: If the saved state is not that of these parameters; the optimizer is unchanged then.
    """
    with safe_open(path, "pt") as file:
        entries: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        entries |= json.loads((file.metadata() or {}).get("numbers", "{}"))
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        name, *sections, leaf = key.split("/")
        target = by_name.setdefault(name, {})
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    names, own = _names(model, optimizer), dict(trainable(model))
    if by_name.keys() != set(names):
        raise CheckpointError(f"{path.name} is that of {len(by_name)} parameters; {len(names)} are trained")
    for name, saved in by_name.items():
        for entry, moment in _flatten(saved):
            if entry.rsplit("/", 1)[-1] in _MOMENTS and moment.shape != own[name].shape:
                raise CheckpointError(f"{path.name} has {tuple(moment.shape)} for {name}, which is {tuple(own[name].shape)}")
    state = {
        index: {leaf: _placed(value, own[name]) if _alike(value, own[name]) else value for leaf, value in by_name[name].items()}
        for index, name in enumerate(names)
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def move_schedule(optimizer: Optimizer, schedule: LRScheduler, step: int) -> float:
    """Put a schedule at a step, whatever its length; returns the learning rate there."""
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": step, "_step_count": step + 1})
    rates = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]  # type: ignore[attr-defined]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
    return float(rates[0])


def generators() -> bytes:
    """The state of this process's random generators, which dropout draws from, as safetensors."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return save(states)


def load_generators(path: Path) -> None:
    """Restore them, where this process had any."""
    if not path.is_file():
        return
    states = load_file(path)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def gather(content: bytes) -> list[bytes]:
    """What each process has, in the order of their ranks."""
    if not distributed.is_initialized():
        return [content]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, content)
    return gathered


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Parameter names in the order of an optimizer's indices."""
    name_of = {id(parameter): name for name, parameter in trainable(model)}
    return [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _flatten(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _alike(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _whole(tensor: Tensor) -> Tensor:
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous().clone()


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, sharded as another is."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor
