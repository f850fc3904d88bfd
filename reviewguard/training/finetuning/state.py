"""Serialisation of the training state by parameter name: weights, optimizer, schedule and random generators.

Unlike indices, names stay valid with other parameter groups, another number of processes, or a sharded model.
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

#: Names of the two moments in torch and bitsandbytes.
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "state1", "state2")


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that are trained, in the model's order."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # after a forward pass, the parameters are gathered copies, which the optimizer does not have
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def count(model: nn.Module) -> int:
    """Total number of parameters. A 4-bit weight counts by its original shape, not its packed bytes."""
    return sum(math.prod((getattr(parameter, "quant_state", None) or parameter).shape) for parameter in model.parameters())


def weights(model: nn.Module) -> bytes:
    """Serialise the trainable parameters as safetensors. Under FSDP, every process must call this."""
    return save({name: _whole(parameter) for name, parameter in trainable(model)})


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters are sharded over processes (FSDP)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def load_weights(model: nn.Module, content: bytes, source: str) -> None:
    """Load parameters serialised by `weights` into a model with the same trainable parameters.

    Raises:
        CheckpointError: If names or shapes differ. The model is then unchanged.
    """
    saved, parameters = load(content), dict(trainable(model))
    if saved.keys() != parameters.keys():
        raise CheckpointError(
            f"{source} contains {len(saved)} tensors, but {len(parameters)} are trained; the first difference is "
            f"{min(saved.keys() ^ parameters.keys())}"
        )
    for name, parameter in parameters.items():
        if saved[name].shape != parameter.shape:
            raise CheckpointError(
                f"{source} has shape {tuple(saved[name].shape)} for {name}, but the model has {tuple(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_placed(saved[name], parameter))


def optimizer(model: nn.Module, optimizer: Optimizer) -> bytes:
    """Serialise an optimizer's state as safetensors, numbers in the header. Under FSDP, every process must call this."""
    raw, names = optimizer.state_dict(), _names(model, optimizer)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in raw["state"].items():
        for path, value in _flatten(entries):
            (tensors if isinstance(value, Tensor) else numbers)[f"{names[index]}/{path}"] = value
    return save({name: _whole(value) for name, value in tensors.items()}, metadata={"numbers": json.dumps(numbers)})


def load_optimizer(model: nn.Module, optimizer: Optimizer, path: Path) -> None:
    """Load the saved state of an optimizer. Its settings remain those of the recipe.

    Raises:
        CheckpointError: If the saved state does not match the parameters. The optimizer is then unchanged.
    """
    with safe_open(path, "pt") as file:
        entries: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        entries |= json.loads((file.metadata() or {}).get("numbers", "{}"))
    by_name: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        name, *sections, leaf = key.split("/")
        target = by_name.setdefault(name, {})
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    names, parameters = _names(model, optimizer), dict(trainable(model))
    if by_name.keys() != set(names):
        raise CheckpointError(f"{path.name} has the state of {len(by_name)} parameters, but {len(names)} are trained")
    for name, saved in by_name.items():
        for entry, moment in _flatten(saved):
            if entry.rsplit("/", 1)[-1] in _MOMENTS and moment.shape != parameters[name].shape:
                raise CheckpointError(
                    f"{path.name} has shape {tuple(moment.shape)} for {name}, but the model has {tuple(parameters[name].shape)}"
                )
    state = {
        index: {
            leaf: _placed(value, parameters[name]) if _alike(value, parameters[name]) else value
            for leaf, value in by_name[name].items()
        }
        for index, name in enumerate(names)
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def move_schedule(optimizer: Optimizer, schedule: LRScheduler, step: int) -> float:
    """Move a schedule of any length to a step, and return the learning rate there."""
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": step, "_step_count": step + 1})
    rates = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]  # type: ignore[attr-defined]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
    return float(rates[0])


def generators() -> bytes:
    """Serialise the random generators of this process, which dropout uses, as safetensors."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return save(states)


def load_generators(path: Path) -> None:
    """Restore the random generators of this process, if their state was saved."""
    if not path.is_file():
        return
    states = load_file(path)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def gather(content: bytes) -> list[bytes]:
    """Collect the contents of all processes, in rank order."""
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
    """Shard a full tensor like another one."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor
