"""The memory estimate, and out-of-memory errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reviewguard.config import EncoderConfig, LoopConfig, LoraConfig
from reviewguard.data.tokens import Encoded
from reviewguard.errors import TrainingError
from reviewguard.models import lora
from reviewguard.models.encoder import load_encoder
from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel
from reviewguard.training.finetuning import memory

ROWS = [Encoded([5] * length, truncated=False, fertility=1.0, words=1) for length in (3, 64, 20)]


@pytest.fixture
def model(tiny_encoder: Path) -> TextModel:
    encoder = load_encoder(EncoderConfig(repo=str(tiny_encoder), max_length=64)).encoder
    encoder.transformer.requires_grad_(True)
    return TextModel(encoder, LinearHead(torch.zeros(2, 32), torch.zeros(2)))


def _plan(
    model: TextModel, loop: LoopConfig | None = None, micro_batch: int = 8, dtype: torch.dtype = torch.float32
) -> memory.MemoryPlan:
    return memory.plan(model, ROWS, loop or LoopConfig(), micro_batch, dtype)


# In bf16, autocast also keeps one copy of the weights, regardless of the number of rows.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_estimate_from_short_rows(model: TextModel, dtype: torch.dtype) -> None:
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    ids = torch.ones((8, 64), dtype=torch.int64)
    with (
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        logits = model.train()(ids, torch.ones_like(ids))
    assert logits.shape == (8, 2)
    true = sum(size for pointer, size in saved.items() if pointer not in weights)
    layers = model.encoder.config.num_hidden_layers
    assert _plan(model, dtype=dtype).activations == pytest.approx(true * (1 + 1 / layers), rel=0.1)


def test_plan_depends_on_the_settings(model: TextModel) -> None:
    plan = _plan(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (plan.gradients, plan.optimizer) == (4 * trainable, 8 * trainable)
    assert _plan(model, micro_batch=4).activations == pytest.approx(plan.activations / 2, rel=0.01)
    assert _plan(model, LoopConfig(gradient_checkpointing=True)).activations < plan.activations
    lora.attach(model.encoder.requires_grad_(False), LoraConfig(r=2), EncoderConfig(repo=""))
    assert _plan(model).gradients < plan.gradients / 2


def test_plan_does_not_change_the_model(model: TextModel) -> None:
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _plan(model)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_plan_as_text() -> None:
    gib = 2**30
    plan = memory.MemoryPlan(device="cuda", total=6 * gib, present=gib, gradients=gib // 10, optimizer=0, activations=2 * gib)
    text = "needs about 3.1 GiB of 6.0 GiB on cuda (present 1.00, gradients 0.10, optimizer 0.00, activations 2.00)"
    assert plan.to_text() == text
    small = memory.MemoryPlan(device="cuda", total=2 * gib, present=gib, gradients=0, optimizer=0, activations=2 * gib)
    assert small.to_text().endswith("; this will probably not fit")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_out_of_memory_error_names_the_settings_to_change(model: TextModel, error: Exception) -> None:
    plan = _plan(model)
    with (
        pytest.raises(TrainingError, match="out of memory; the estimate was: needs about") as raised,
        memory.explained(LoopConfig(), plan),
    ):
        raise error
    for knob in ("micro_batch_size=8", "gradient_checkpointing=true", "max_length", "adapter=qlora", "resume=True"):
        assert knob in str(raised.value)
    tight = LoopConfig(micro_batch_size=1, gradient_checkpointing=True)
    with pytest.raises(TrainingError) as raised, memory.explained(tight, plan):
        raise error
    assert "micro_batch_size" not in str(raised.value)
    assert "gradient_checkpointing" not in str(raised.value)


def test_real_allocation_failure(model: TextModel) -> None:
    with pytest.raises(TrainingError, match="out of memory"), memory.explained(LoopConfig(), _plan(model)):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_are_unchanged(model: TextModel) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory.explained(LoopConfig(), _plan(model)):
        torch.ones(2, 3) @ torch.ones(2, 3)
