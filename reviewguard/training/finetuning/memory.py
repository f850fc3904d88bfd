"""Estimate of the memory that fine-tuning needs, and advice when memory runs out."""

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
from reviewguard.models.transformer import TransformerEncoder

_GIB = 2**30
#: Memory of CUDA and its libraries besides tensors, measured with torch 2.11, CUDA 13 and bitsandbytes on an H100.
CUDA_CONTEXT = 780 * 2**20
#: Maximum number of tokens in a trial forward pass.
_PROBE = 64


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Estimate of the peak memory of training, in bytes.

    Attributes:
        device: "cuda" or "cpu".
        total: Memory of the device.
        present: Memory in use before training: the weights, or on a CPU the whole process.
        gradients: Gradients of the trainable parameters.
        optimizer: The two moments of the optimizer.
        activations: Activations of one micro-batch of the longest rows, saved for the backward pass.
    """

    device: str
    total: int
    present: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def needed(self) -> int:
        """Total in bytes."""
        return self.present + self.gradients + self.optimizer + self.activations

    def to_text(self) -> str:
        """Format the estimate as one line."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / _GIB:.2f}" for name in ("present", "gradients", "optimizer", "activations")
        )
        warning = "" if self.needed <= self.total else "; this will probably not fit"
        return f"needs about {self.needed / _GIB:.1f} GiB of {self.total / _GIB:.1f} GiB on {self.device} ({parts}){warning}"


def plan(model: TextModel, encoded: Sequence[Encoded], loop: LoopConfig, micro_batch: int, dtype: torch.dtype) -> MemoryPlan:
    """Estimate the memory of training from the activations that short forward passes save for the backward pass.

    Args:
        model: Model on its device, before gradient checkpointing is enabled.
        encoded: The training rows; the longest determines the estimate.
        loop: Settings of the training loop.
        micro_batch: Rows in one micro-batch on one device.
        dtype: Type of autocast. float32: no autocast.
    """
    device = next(model.parameters()).device
    length = max(len(item.ids) for item in encoded)
    probe = max(4, min(_PROBE, length))
    probes = [probe // 4, probe // 2, probe]
    # A row of n tokens saves a n^2 + b n bytes. Constant terms, such as weights copied in another precision, are saved once.
    square, linear, constant = np.polyfit(probes, [_saved_bytes(model, tokens, dtype) for tokens in probes], 2).clip(0).tolist()
    activations = constant + micro_batch * (linear * length + square * length**2)
    assert isinstance(model.encoder, TransformerEncoder)
    config = model.encoder.config
    layers = int(config.num_hidden_layers) + int(getattr(config, "num_decoder_layers", None) or 0)
    # The backward pass also needs the gradients of one layer's activations.
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
    """Peak memory of training on a GPU, appended to the plan. Empty on a CPU, where it cannot be measured separately."""
    if device.type != "cuda":
        return ""
    return f"; took {(torch.cuda.max_memory_reserved(device) + CUDA_CONTEXT) / _GIB:.1f} GiB"


def _saved_bytes(model: TextModel, length: int, dtype: torch.dtype) -> int:
    """Bytes that a forward pass over one row saves for the backward pass, without weights."""
    device = next(model.parameters()).device
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would form a reference cycle with its graph, which is never freed

    ids = torch.ones((1, length), dtype=torch.int64, device=device)
    was_training = model.training
    model.train()
    try:
        with (
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            logits = model(ids, torch.ones_like(ids))  # kept alive until the hooks end, so that no storage is reused
        del logits
    finally:
        model.train(was_training)
    return sum(saved.values())


@contextlib.contextmanager
def explained(loop: LoopConfig, planned: MemoryPlan) -> Iterator[None]:
    """Turn out-of-memory errors into an error that names the settings to change.

    Raises:
        TrainingError: If memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        knobs = []
        if loop.micro_batch_size > 1:
            smaller = loop.micro_batch_size // 2
            knobs.append(f"loop.micro_batch_size={smaller} (the result is the same: gradients are accumulated to batch_size)")
        if not loop.gradient_checkpointing:
            knobs.append("loop.gradient_checkpointing=true")
        knobs += ["a smaller encoder.max_length", "adapter=qlora", "loop.optimizer=paged_adamw_8bit on a GPU"]
        raise TrainingError(
            f"out of memory; the estimate was: {planned.to_text()}. Set {', or '.join(knobs)}; then pass resume=True if there "
            "is a checkpoint"
        ) from error
