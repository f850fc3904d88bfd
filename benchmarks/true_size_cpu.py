"""Take one QLoRA step with each large preset at full size on the CPU, and write docs/results/true-size-cpu.

    nice -n 10 python benchmarks/true_size_cpu.py

The weights are random, so nothing is downloaded. Takes a few minutes, 6 GB of memory and 4 GB of scratch space.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from _results import describe, machine, run_apart, write

#: Expected parameters of each encoder and of its adapters of rank 16, computed by hand from the shapes.
EXPECTED = {"stella-qlora": (434_139_136, 3_145_728), "flan-t5-qlora": (750_251_008, 18_284_544)}
ROWS, TOKENS = 4, 128
LIMIT = 1800


def measured(preset: str) -> dict[str, Any]:
    """Write the encoder and train one step, in separate processes so that memory peaks are separate."""
    with tempfile.TemporaryDirectory() as scratch:
        written = run_apart("_qlora.py", {"do": "prepare", "presets": [preset], "folder": scratch}, LIMIT)
        # Processors without bf16 emulate it, a hundred times slower.
        settings = {"loop.epochs": 1, "loop.batch_size": ROWS, "loop.micro_batch_size": ROWS, "loop.precision": "auto"}
        spec = {"do": "measure", "preset": preset, "folder": f"{scratch}/{preset}", "lengths": [TOKENS] * ROWS}
        load = os.getloadavg()[0]
        result = run_apart("_qlora.py", {**spec, "settings": settings}, LIMIT)
    if result["outcome"] != "trained":
        raise SystemExit(f"{preset}: {written['outcome']}, {result['outcome']}\n{result.get('error', '')}")
    counts = written["parameters"][preset], result["lora_parameters"]
    if counts != EXPECTED[preset]:
        raise SystemExit(f"{preset}: {counts} parameters of encoder and adapters; expected {EXPECTED[preset]}")
    return {**result, "parameters": counts[0], "load_before": load}


def main() -> None:
    """Measure and write."""
    runs = {}
    for preset in EXPECTED:
        started = time.monotonic()
        runs[preset] = measured(preset)
        print(f"{preset}: {time.monotonic() - started:.0f} s in all", flush=True)
    about = machine(("peft", "accelerate", "bitsandbytes"))
    rows = [
        f"| {preset} | {run['parameters']:,} | {run['lora_parameters']:,} | {run['nf4_mb']:.0f} | {run['encoder_mb']:.0f} | "
        f"{run['load_peak_rss_gib']:.2f} | {run['peak_rss_gib']:.2f} | {run['plan_gib']:.2f} | {run['steps'][0][2]:.0f} |"
        for preset, run in runs.items()
    ]
    precision = " and ".join(sorted({run["precision"] for run in runs.values()}))
    load = ", ".join(f"{run['load_before']:.1f}" for run in runs.values())
    markdown = f"""# QLoRA at full size on a CPU

**The weights are random.** This benchmark shows that the large presets train with their settings, and measures memory and time; it says
nothing about accuracy. Parameter counts of encoders and adapters are checked against counts computed by hand from the shapes.

Each run is one optimizer step on {ROWS} texts of {TOKENS} random tokens, with the settings of the preset except `loop.precision=auto`, which is {precision} here.
On a CPU, plain AdamW replaces the paged 8-bit AdamW.

| preset | encoder | adapters, r=16 | NF4 layers (MB) | encoder in memory (MB) | loading (GiB) | peak (GiB) | planned (GiB) | s per step |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

In memory, embeddings, norms and, for T5, the layers `wo` are in 32 bits. Peaks are for the complete process, including Python, libraries
and the memory-mapped weights. Other work shared the processor (load {load} before each run), so the times
are upper bounds. Use a CPU for tests and a GPU for training.

{describe(about)}

Made by `python benchmarks/true_size_cpu.py`; data in [true-size-cpu.json](true-size-cpu.json).
"""
    result = {"machine": about, "weights": "random", "rows": ROWS, "tokens": TOKENS, "runs": runs}
    write("true-size-cpu", result, markdown)


if __name__ == "__main__":
    main()
