"""Where benchmarks write: docs/results, with the machine and the versions that the figures belong to."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
SHARED = ROOT.parent / "shared" / "data"
PACKAGES = ("reviewguard", "torch", "transformers", "scikit-learn", "onnxruntime", "tokenizers", "numpy")


def machine() -> dict[str, Any]:
    """The processor, its cores and memory, and the versions of what runs on it."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
        cpu = names[0] if names else cpu
        cpu += "".join(f", {name}" for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def write(name: str, result: dict[str, Any], markdown: str) -> None:
    """Write NAME.json and NAME.md, and print the latter."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(markdown.rstrip() + "\n", encoding="utf-8")
    print(markdown)


def describe(of: dict[str, Any]) -> str:
    """The machine in one sentence of Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in of["packages"].items())
    return f"Machine: {of['cores']} cores of {of['cpu']}, {of['memory_gib']} GiB; Python {of['python']}; {packages}."
