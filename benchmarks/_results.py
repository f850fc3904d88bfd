"""Output of benchmarks to docs/results, with the machine and the package versions."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
SHARED = ROOT.parent / "shared" / "data"
PACKAGES = ("reviewguard", "torch", "transformers", "scikit-learn", "onnxruntime", "tokenizers", "numpy")


def machine(more: Sequence[str] = ()) -> dict[str, Any]:
    """The processor, its cores and memory, an NVIDIA GPU if there is one, and package versions.

    Args:
        more: Packages to list in addition to the usual ones.
    """
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
        cpu = names[0] if names else cpu
        cpu += "".join(
            f", {name}" for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if f" {name}" in flags
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = {}
    for name in (*PACKAGES, *more):
        with contextlib.suppress(PackageNotFoundError):  # a machine for one benchmark may lack some
            packages[name] = version(name)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "packages": packages,
        **gpu(),
    }


def gpu() -> dict[str, Any]:
    """The first NVIDIA GPU, its memory and driver, and the CUDA version of torch; empty without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    # torch would allocate memory on the card to name it.
    query = ["nvidia-smi", "--id=0", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError, ValueError):
        name, memory, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
        return {"gpu": {"name": name, "memory": memory, "driver": driver, "cuda": torch.version.cuda}}
    return {"gpu": {"name": "NVIDIA GPU", "memory": "unknown", "driver": "unknown", "cuda": torch.version.cuda}}


def run_apart(
    script: str, spec: dict[str, Any], limit: float, env: Mapping[str, str] = os.environ, python: str = sys.executable
) -> dict[str, Any]:
    """Run a script of this folder in a separate process; its argument and its last line of output are JSON objects.

    A process that fails or exceeds `limit` seconds also gives a result, with the reason as `outcome`.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    command = [python, str(Path(__file__).with_name(script)), json.dumps(spec)]
    try:
        env = {**env, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"outcome": f"stopped after {limit:.0f} s"}
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        # Report only the exception, not the paths of the traceback; its message may span several lines.
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"outcome": "failed", "error": next((line for line in lines[::-1] if re.match(r"[\w.]+Error: ", line)), lines[-1])}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def save(name: str, result: dict[str, Any], markdown: str, folder: Path = RESULTS) -> None:
    """Write NAME.json and NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown.rstrip() + "\n", encoding="utf-8")


def write(name: str, result: dict[str, Any], markdown: str) -> None:
    """Write NAME.json and NAME.md, and print the Markdown."""
    save(name, result, markdown)
    print(markdown)


def describe(of: dict[str, Any]) -> str:
    """The machine in one sentence of Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in of["packages"].items())
    card = of.get("gpu")
    about = f"{card['name']}, {card['memory']}, driver {card['driver']}, CUDA {card['cuda']}; " if card else ""
    return f"Machine: {about}{of['cores']} cores of {of['cpu']}, {of['memory_gib']} GiB; Python {of['python']}; {packages}."


def cell(estimate: dict[str, float]) -> str:
    """A metric with its interval, in percent."""
    return f"{100 * estimate['value']:.2f} [{100 * estimate['low']:.2f}, {100 * estimate['high']:.2f}]"
