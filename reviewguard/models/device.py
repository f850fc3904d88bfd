"""Device, data type and batch size for this machine."""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The GPU if there is one (under torchrun, the GPU of this process), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def token_budget(device: torch.device) -> int:
    """Maximum number of tokens in a prediction batch, padding included.

    A GPU needs large batches to stay busy. A CPU gains nothing from them, and a large batch of few texts is mostly padding.
    """
    return 1024 if device.type == "cpu" else 4096


def compute_dtype(precision: str) -> torch.dtype:
    """The data type for "auto", "bf16" or "fp32" on this machine."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.bfloat16 if native else torch.float32


# Torch's worker threads do not survive a fork, and a forked process would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process, in MiB; None on systems without getrusage."""
    try:
        import resource
    except ImportError:
        return None
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
