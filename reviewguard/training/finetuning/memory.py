"""How much memory fine-tuning will take, said before it starts, and what to change when it was too much."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import psutil
import torch
from torch import Tensor

from reviewguard.config import LoopConfig
from reviewguard.data.tokens import Encoded
from reviewguard.errors import TrainingError
from reviewguard.models.text_model import TextModel

_GIB = 2**30
#: What CUDA and its libraries take besides tensors, as seen with torch 2.11, CUDA 13 and bitsandbytes on an H100.
CUDA_CONTEXT = 780 * 2**20
#: The longest row that is tried out.
_PROBE = 64


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate of the largest memory of training, in bytes.

    Attributes:
        device: "cuda" or "cpu".
        total: What the device has.
        present: What is taken already: weights, and on a CPU the whole process.
        gradients: Of the trainable parameters.
        optimizer: Its two moments.
        activations: Of one micro-batch of the longest rows, kept for the backward pass.
    """

    device: str
    total: int
    present: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return self.present + self.gradients + self.optimizer + self.activations

    def to_text(self) -> str:
        """One line for people."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / _GIB:.2f}" for name in ("present", "gradients", "optimizer", "activations")
        )
        warning = "" if self.needed <= self.total else "; this will probably not fit"
        return f"needs about {self.needed / _GIB:.1f} GiB of {self.total / _GIB:.1f} GiB on {self.device} ({parts}){warning}"


def plan(model: TextModel, encoded: Sequence[Encoded], loop: LoopConfig, micro_batch: int, dtype: torch.dtype) -> MemoryPlan:
    """Estimate the memory of training a model, from what short forward passes keep for the backward one.

    Args:
        model: On its device, gradient checkpointing not yet enabled.
        encoded: The training rows; the longest ones count.
        loop: Settings.
        micro_batch: Rows a device computes at once.
        dtype: Of autocast; float32 for none.
    """
    device = next(model.parameters()).device
    length = max(len(item.ids) for item in encoded)
    probe = max(4, min(_PROBE, length))
    probes = [probe // 4, probe // 2, probe]
    # A row of n tokens keeps a n^2 + b n bytes. What does not grow with it is kept once: copies of weights in another precision.
    square, linear, constant = np.polyfit(probes, [_kept(model, tokens, dtype) for tokens in probes], 2).clip(0).tolist()
    activations = constant + micro_batch * (linear * length + square * length**2)
    config = model.encoder.config
    layers = int(config.num_hidden_layers) + int(getattr(config, "num_decoder_layers", None) or 0)
    # The backward pass holds gradients of one layer's activations besides.
    one_layer = activations / layers
    if loop.gradient_checkpointing:
        inputs = layers * micro_batch * length * config.hidden_size * 4  # norms and sums stay in float32 under autocast
        activations = inputs + one_layer
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    on_gpu = device.type == "cuda"
    eight_bit = on_gpu and loop.optimizer == "paged_adamw_8bit"
    if on_gpu:
        total = int(torch.cuda.get_device_properties(device).total_memory * torch.cuda.get_per_process_memory_fraction(device))
        present = torch.cuda.memory_allocated(device) + CUDA_CONTEXT
    else:
        total, present = psutil.virtual_memory().total, psutil.Process().memory_info().rss
    return MemoryPlan(
        device=device.type,
        total=total,
        present=present,
        gradients=4 * trainable,
        optimizer=(2 if eight_bit else 8) * trainable,
        activations=int(activations + one_layer),
    )


def peak_text(device: torch.device) -> str:
    """What training came to on a GPU, to be read after the plan; empty on a CPU, where nothing tells it from the rest."""
    if device.type != "cuda":
        return ""
    return f"; took {(torch.cuda.max_memory_reserved(device) + CUDA_CONTEXT) / _GIB:.1f} GiB"


def _kept(model: TextModel, length: int, dtype: torch.dtype) -> int:
    """Bytes that a forward pass over one row keeps for the backward one, weights not counted."""
    device = next(model.parameters()).device
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would be a cycle with its graph, which nothing frees

    ids = torch.ones((1, length), dtype=torch.int64, device=device)
    was_training = model.training
    model.train()
    try:
        with (
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            logits = model(ids, torch.ones_like(ids))  # held until the hooks are done, so that no storage is used twice
        del logits
    finally:
        model.train(was_training)
    return sum(kept.values())


@contextlib.contextmanager
def explained(loop: LoopConfig, planned: MemoryPlan) -> Iterator[None]:
    """Turn running out of memory into an error that names the settings to change.

    Raises:
        TrainingError: In place of torch's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        knobs = []
        if loop.micro_batch_size > 1:
            smaller = loop.micro_batch_size // 2
            knobs.append(f"loop.micro_batch_size={smaller} (the result stays the same: batch_size is kept by accumulation)")
        if not loop.gradient_checkpointing:
            knobs.append("loop.gradient_checkpointing=true")
        knobs += ["a smaller encoder.max_length", "adapter=qlora", "loop.optimizer=paged_adamw_8bit on a GPU"]
        raise TrainingError(
            f"out of memory; the plan was: {planned.to_text()}. Set {', or '.join(knobs)}; then go on with resume=True if there "
            "is a checkpoint"
        ) from error
