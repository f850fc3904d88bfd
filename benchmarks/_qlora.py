"""QLoRA on full-size encoders with random weights. The benchmarks run this script in a separate process.

    python benchmarks/_qlora.py '{"do": "prepare", ...}'

The last line of output is a JSON object. Memory and speed depend on shapes, not on the values of weights, so no download is needed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import tokenizers
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoConfig, AutoModel

from reviewguard.config import decode, load_preset, merge
from reviewguard.data.tokens import Batch, Encoded, Tokenizer
from reviewguard.models.device import best_device, compute_dtype
from reviewguard.training.backends import finetune
from reviewguard.training.finetuning import memory
from reviewguard.training.finetuning.batches import LengthGroupedSampler, Rows
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.finetuning.loop import fine_tune

GIB = 2**30
SEED = 0
# As in the published configurations of NovaSearch/stella_en_400M_v5 (in transformers' terms) and google/flan-t5-large.
SIZES: dict[str, dict[str, Any]] = {
    "stella-qlora": {
        "model_type": "gte",
        "vocab_size": 30528,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 320_000.0, "factor": 1.0218971486541166},
    },
    "flan-t5-qlora": {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 1024,
        "d_kv": 64,
        "d_ff": 2816,
        "num_layers": 24,
        "num_heads": 16,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "tie_word_embeddings": False,
    },
}
TINY = {
    "stella-qlora": {
        "vocab_size": 500,
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
    "flan-t5-qlora": {"vocab_size": 500, "d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 1, "num_heads": 2},
}


def prepare(
    presets: list[str], folder: str, tiny: bool = False, counts: Sequence[int] = (), rows: int = 0, batch_size: int = 16
) -> dict[str, Any]:
    """Write the encoders of presets, and draw the text lengths of an epoch.

    Args:
        presets: Names of presets. Each gets a folder in Hugging Face layout, with random weights and a placeholder tokenizer.
        folder: Parent folder of these folders.
        tiny: Whether to reduce the sizes; architectures stay.
        counts: Number of texts by length.
        rows: Number of texts to draw; `batches` has their lengths in training order.
        batch_size: Texts per optimizer step.
    """
    parameters = {}
    for preset in presets:
        torch.manual_seed(SEED)
        with best_device():
            model = AutoModel.from_config(AutoConfig.for_model(**{**SIZES[preset], **(TINY[preset] if tiny else {})}))
        if hasattr(model, "pooler"):
            model.pooler = None
        parameters[preset] = sum(parameter.numel() for parameter in model.parameters())
        model.save_pretrained(Path(folder) / preset, max_shard_size="10GB")
        words = tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")
        tokenizers.Tokenizer(words).save(str(Path(folder) / preset / "tokenizer.json"))
        (Path(folder) / preset / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')
    lengths = (
        np.random.default_rng(SEED).choice(len(counts), size=rows, p=np.array(counts) / sum(counts)) if rows else np.zeros(0)
    )
    batches = lengths[list(LengthGroupedSampler(lengths.tolist(), batch_size, SEED))].reshape(-1, batch_size) if rows else lengths
    return {"outcome": "written", "parameters": parameters, "batches": batches.tolist()}


class Meter:
    """Replaces the tokenizer, of which training uses only `pad`, and times each optimizer step.

    Attributes:
        steps: Padded tokens, real tokens and seconds of each step.
    """

    def __init__(self, tokenizer: Tokenizer, width: int | None, micro_batches: int) -> None:
        """Pad to `width` or, if None, to the longest text of a micro-batch; a step has `micro_batches` micro-batches."""
        self._tokenizer = tokenizer
        self._width = width
        self._micro_batches = micro_batches
        self._sizes: list[tuple[int, int]] = []
        self._started = 0.0
        self.steps: list[tuple[int, int, float]] = []

    def pad(self, encoded: Sequence[Encoded]) -> Batch:
        """Pad texts into a batch."""
        self._started = self._started or time.perf_counter()
        batch = self._tokenizer.pad(encoded)
        if self._width is not None:
            more = self._width - batch["input_ids"].shape[1]
            batch = {name: np.pad(values, ((0, 0), (0, more))) for name, values in batch.items()}
        self._sizes.append((batch["input_ids"].size, int(batch["attention_mask"].sum())))
        return batch

    def on_step(self, *_: Any) -> None:
        """Record a step. Batches are prefetched, so only the oldest belong to it."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        sizes, self._sizes = self._sizes[: self._micro_batches], self._sizes[self._micro_batches :]
        self.steps.append((sum(padded for padded, _ in sizes), sum(real for _, real in sizes), now - self._started))
        self._started = now


def measure(
    preset: str, folder: str, lengths: list[int], settings: dict[str, Any], width: int | None = None, cap_gib: float | None = None
) -> dict[str, Any]:
    """Train a preset on random tokens, as the backend `finetune` does, and measure memory and time.

    Args:
        preset: Name of a preset.
        folder: Folder of its encoder.
        lengths: Tokens of each text.
        settings: Overrides of the preset.
        width: Tokens to pad every text to; None: the longest text of the micro-batch.
        cap_gib: Memory of the simulated card in GiB, its CUDA context included; None: no limit.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu and cap_gib is not None:
        limit = (cap_gib * GIB - memory.CUDA_CONTEXT) / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit), 0)
    overrides = {"encoder.repo": folder, "encoder.revision": "", "encoder.max_length": max(lengths), **settings}
    config = decode(merge(load_preset(preset), overrides), finetune.Config)
    started = time.perf_counter()
    loaded = finetune.load(config)
    result = {"load_seconds": time.perf_counter() - started, "load_peak_rss_gib": _peak_rss_gib(), **_footprint(loaded.encoder)}
    if on_gpu:
        result["load_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
    model = finetune.untrained(2, loaded, config)
    result["lora_parameters"] = sum(p.numel() for p in loaded.encoder.parameters() if p.requires_grad)
    rng = np.random.default_rng(SEED)
    encoded = [Encoded(rng.integers(2, loaded.encoder.config.vocab_size, size=n).tolist(), False, 1.0, n) for n in lengths]
    rows = Rows(encoded, np.arange(len(lengths)) % 2)
    loop = config.loop
    planned = memory.plan(model, encoded, loop, loop.micro_batch_size, compute_dtype(loop.precision))
    result["plan_gib"] = planned.needed / GIB
    meter = Meter(loaded.tokenizer, width, loop.batch_size // loop.micro_batch_size)
    hook = register_optimizer_step_post_hook(meter.on_step)
    history = fine_tune(model, meter, rows, None, loop=loop, seed=config.seed, base="random", run=Run())  # type: ignore[arg-type]
    hook.remove()
    losses = [entry.loss for entry in history.epochs if entry.loss is not None]
    if on_gpu:
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.max_memory_reserved()
        context = total - free - torch.cuda.memory_reserved()
        result |= {
            "peak_allocated_gib": torch.cuda.max_memory_allocated() / GIB,
            "peak_reserved_gib": reserved / GIB,
            "context_gib": context / GIB,  # correct if nothing else uses the card
            "peak_gib": (reserved + context) / GIB,
            "allocation_retries": torch.cuda.memory_stats()["num_alloc_retries"],
        }
    return result | {
        "outcome": "trained",
        "peak_rss_gib": _peak_rss_gib(),
        "loss": losses[-1] if losses else None,
        "device": history.device,
        "precision": history.precision,
        "steps": meter.steps,
    }


def _peak_rss_gib() -> float:
    """Largest resident memory of this process so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB  # in KiB on Linux


def _footprint(encoder: nn.Module) -> dict[str, Any]:
    """Size of a quantised encoder in megabytes: in total, and of its NF4 layers with their scales."""
    layers = [module for module in encoder.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    states = [layer.weight.quant_state for layer in layers]
    scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
    tensors = sum(tensor.nbytes for tensor in (*encoder.parameters(), *encoder.buffers()))
    return {
        "nf4_layers": len(layers),
        "nf4_parameters": sum(state.shape.numel() for state in states),
        "nf4_mb": (sum(layer.weight.nbytes for layer in layers) + scales) / 1e6,
        "encoder_mb": (tensors + scales) / 1e6,
    }


def _ran_out(error: BaseException | None) -> bool:
    """Whether an error was caused by a lack of memory; reviewguard wraps torch's error in its own."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Run the requested function."""
    asked = json.loads(sys.argv[1])
    do = asked.pop("do")
    try:
        result: dict[str, Any] = {"prepare": prepare, "measure": measure}[do](**asked)
    except Exception as error:
        if not _ran_out(error):
            raise
        result = {"outcome": "out of memory", "error": str(error)[:500]}
        if torch.cuda.is_available():
            result["peak_reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    print(json.dumps(result))


if __name__ == "__main__":
    main()
