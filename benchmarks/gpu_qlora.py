"""Measure memory and speed of QLoRA on an NVIDIA GPU, and write docs/results/gpu-qlora.

    python benchmarks/gpu_qlora.py

Needs 6 GB of scratch space and less than ten minutes, but no network, reviews or weights. The script lists missing packages; the
project itself need not be installed. Each configuration runs in a separate process on the first GPU, and results are written after each.
To check bitsandbytes and the driver first, in a minute or two:

    python benchmarks/gpu_qlora.py --tiny --out build/gpu-qlora

Without a GPU, the same code runs at tiny sizes with `--device cpu --tiny --out FOLDER`, as in the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from _results import RESULTS, ROOT, describe, gpu, machine, run_apart, save

PRESETS = ("stella-qlora", "flan-t5-qlora")
#: Packages that training imports; pyproject.toml has their minimum versions.
NEEDED = ("accelerate", "bitsandbytes", "huggingface-hub", "msgspec", "numpy", "peft", "psutil", "safetensors", "scikit-learn")
NEEDED += ("tokenizers", "torch", "tqdm", "transformers")
REVIEWS = 28_000
CAPS = (6, 8, None)
BATCHES = 5


def missing() -> list[str]:
    """Packages to install first, each with the installed version."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanting = []
    for requirement in map(Requirement, (*project["dependencies"], *extras["train"], *extras["qlora"])):
        if requirement.name in NEEDED:
            try:
                installed = version(requirement.name)
            except PackageNotFoundError:
                installed = "absent"
            if installed == "absent" or not requirement.specifier.contains(installed, prereleases=True):
                wanting.append(f"{requirement.name}{requirement.specifier} (here: {installed})")
    return wanting


def trials(also: list[int]) -> Iterator[dict[str, Any]]:
    """The configurations, the most important first."""
    loops = {name: tomllib.loads((ROOT / f"reviewguard/presets/{name}.toml").read_text("utf-8"))["loop"] for name in PRESETS}
    for preset, loop in loops.items():
        for recipe, micro in (("ours", loop["micro_batch_size"]), ("study", 2)):
            yield {"preset": preset, "recipe": recipe, "micro_batch": micro, "cap_gib": CAPS[0]}
    for preset in PRESETS:
        for micro in also:
            yield {"preset": preset, "recipe": "ours", "micro_batch": micro, "cap_gib": None}


def padded_tokens(lengths: Any, recipe: str, micro_batch: int, width: int) -> Any:
    """Tokens that each step of an epoch computes, padding included; `lengths` is (steps, batch)."""
    if recipe == "study":
        return lengths.shape[1] * width + 0 * lengths[:, 0]
    return lengths.reshape(len(lengths), -1, micro_batch).max(axis=2).sum(axis=1) * micro_batch


def extrapolated(trial: dict[str, Any], steps: list[list[float]], lengths: Any, width: int) -> dict[str, float]:
    """The time of a complete epoch; the time of each step is interpolated by its number of tokens."""
    import numpy as np

    padded, real = padded_tokens(lengths, trial["recipe"], trial["micro_batch"], width), int(lengths.sum())
    tokens, _, seconds = np.array(sorted(steps[len(steps) // 2 :])).T  # the first pass is a warm-up
    each = np.interp(padded, tokens, seconds) if np.ptp(tokens) else np.full(len(padded), seconds.mean())
    whole = float(each.sum())
    return {
        "seconds_per_step": whole / len(padded),
        "real_tokens_per_second": real / whole,
        "padded_tokens_per_second": int(padded.sum()) / whole,
        "padding_share": 1 - real / int(padded.sum()),
        "epoch_minutes": whole / len(padded) * REVIEWS / lengths.shape[1] / 60,
    }


def verdicts(runs: list[dict[str, Any]]) -> list[str]:
    """Summarise the tables in words."""
    sentences = []
    for preset in PRESETS:
        minutes = {}
        for recipe, name in (("ours", "as it ships"), ("study", "as the study padded")):
            capped = [run for run in runs if (run["preset"], run["recipe"]) == (preset, recipe) and run["cap_gib"]]
            for run in capped:
                if run["outcome"] == "trained":
                    minutes[recipe] = run["epoch_minutes"]
                    peak = f", with a peak of {run['peak_gib']:.2f} GiB" if "peak_gib" in run else ""
                    sentences.append(f"- `{preset}`, {name}, trains in {run['cap_gib']} GiB{peak}.")
                else:
                    sentences.append(f"- `{preset}`, {name}, does not train in {run['cap_gib']} GiB: {run['outcome']}.")
        if len(minutes) == 2:
            sentences.append(
                f"- `{preset}`: an epoch is {minutes['study'] / minutes['ours']:.1f} times as fast as with the batches of the study."
            )
    return sentences


def markdown(runs: list[dict[str, Any]], about: dict[str, Any], note: str) -> str:
    """Render the results as Markdown."""

    def row(run: dict[str, Any], names: tuple[str, ...], form: str) -> str:
        cap = f"{run['cap_gib']} GiB" if run["cap_gib"] else "all of it"
        cells = [run["preset"], run["recipe"], str(run["micro_batch"]), cap, run["outcome"]]
        cells += [form.format(run[name]) if run.get(name) is not None else "-" for name in names]
        return f"| {' | '.join(cells)} |"

    memory = ("peak_allocated_gib", "peak_reserved_gib", "context_gib", "peak_gib", "plan_gib")
    speed = ("seconds_per_step", "real_tokens_per_second", "padded_tokens_per_second", "epoch_minutes")
    head = "| preset | recipe | micro-batch | card | outcome | "
    return f"""# QLoRA on a GPU

{note}The presets train full-size encoders with random weights on random tokens. Memory and speed depend only on shapes, and
these results say nothing about quality. Text lengths are those in `benchmarks/review_lengths.json`. The recipe `ours` is the
preset; `study` pads every text to 512 tokens, in micro-batches of 2. An optimizer step uses 16 reviews.

{chr(10).join(verdicts(runs))}

## Memory, GiB

A "card" is a limit on the memory of torch: the nominal size minus 0.76 GiB for the CUDA context. Each run includes rows of 512 tokens.
The plan is the estimate of `reviewguard` before training. It corresponds to the peak: memory reserved by torch plus the context.

{head}allocated | reserved | context | peak | plan |
{"| --- " * 10}|
{chr(10).join(row(run, memory, "{:.2f}") for run in runs)}

## Speed

Measured on {BATCHES} batches from the shortest to the longest (2 for the study, whose batches all have one length), in a second pass. The time of every step
of an epoch is interpolated by its tokens. Tokens are those of the reviews, counted once if a decoder reads them too. Minutes are for an epoch of {REVIEWS:,} reviews.

{head}s per step | real tokens/s | tokens/s with padding | min per epoch |
{"| --- " * 9}|
{chr(10).join(row(run, speed, "{:,.2f}") for run in runs)}

{describe(about)}

Made by `python benchmarks/gpu_qlora.py`; data in [gpu-qlora.json](gpu-qlora.json).
"""


def arguments() -> argparse.Namespace:
    """Parse the command line, and reject what cannot run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="use tiny encoders, to test the setup")
    parser.add_argument("--out", type=Path, help="folder for the results of a tiny run")
    parser.add_argument("--also", type=int, nargs="*", default=[2], help="additional micro-batch sizes to time")
    parser.add_argument("--minutes", type=float, default=9, help="time limit in minutes")
    asked = parser.parse_args()
    if (asked.device == "cpu" and not asked.tiny) or asked.tiny != (asked.out is not None):
        parser.error("--tiny and --out go together, and --device cpu needs both: docs/results is for true sizes on a GPU")
    if wanting := missing():
        raise SystemExit("install first: " + ", ".join(wanting))
    if asked.device == "cuda" and not gpu():
        raise SystemExit("torch sees no GPU; to test without one: --device cpu --tiny --out FOLDER")
    return asked


def scaled(counts: list[int], width: int) -> list[int]:
    """The distribution of lengths, scaled to a maximum of `width` tokens."""
    longest = len(counts) - 1
    lengths = [-(-n * width // longest) for n in range(len(counts))]
    return [sum(count for length, count in zip(lengths, counts, strict=True) if length == n) for n in range(width + 1)]


def main() -> None:
    """Prepare, and measure the configurations in sequence."""
    started, asked = time.monotonic(), arguments()

    import numpy as np

    # With several visible GPUs, transformers would split batches. One thread is faster than many on small matrices.
    env = {"CUDA_VISIBLE_DEVICES": "0", **os.environ}
    if asked.device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    counts = json.loads((ROOT / "benchmarks" / "review_lengths.json").read_text(encoding="utf-8"))["counts"]
    width = 32 if asked.tiny else len(counts) - 1
    about = machine(("peft", "accelerate", "bitsandbytes", "safetensors"))
    result: dict[str, Any] = {"machine": about, "device": asked.device, "tiny": asked.tiny, "reviews": REVIEWS, "runs": []}
    note = f"**A test of the script at tiny sizes on {asked.device}: no result.**\n\n" if asked.tiny else ""
    with tempfile.TemporaryDirectory() as scratch:

        def child(spec: dict[str, Any]) -> dict[str, Any]:
            left = asked.minutes * 60 - (time.monotonic() - started)
            if left < 30:
                return {"outcome": "not run: no time left"}
            # A hanging run must leave time for the others.
            return run_apart("_qlora.py", spec, min(left, max(asked.minutes * 20, 60)), env)

        spec = {"do": "prepare", "presets": PRESETS, "folder": scratch, "tiny": asked.tiny}
        ready = child({**spec, "counts": scaled(counts, width), "rows": 320 if asked.tiny else REVIEWS})
        if ready["outcome"] != "written":
            raise SystemExit(f"cannot write the encoders: {ready['outcome']}\n{ready.get('error', '')}")
        print(f"{time.monotonic() - started:5.0f} s  wrote encoders of {ready['parameters']} parameters", flush=True)
        lengths = np.array(ready["batches"])
        by_longest = lengths[np.argsort(lengths.max(axis=1), kind="stable")]
        picked = by_longest[np.linspace(0, len(lengths) - 1, BATCHES).astype(int)]
        # Two suffice, since batches padded to one width take the same time.
        chosen = {"ours": picked.ravel().tolist(), "study": picked[[0, -1]].ravel().tolist()}
        queue = deque(trials(asked.also))
        while queue:
            trial = queue.popleft()
            settings = {"loop.epochs": 2, "loop.batch_size": lengths.shape[1], "loop.micro_batch_size": trial["micro_batch"]}
            if asked.device == "cpu":
                settings["loop.precision"] = "auto"  # few processors compute in bf16; others emulate it slowly
            spec = {"do": "measure", "preset": trial["preset"], "folder": f"{scratch}/{trial['preset']}", "settings": settings}
            spec |= {"lengths": chosen[trial["recipe"]], "cap_gib": trial["cap_gib"]}
            spec |= {"width": width if trial["recipe"] == "study" else None}
            run = {**trial, **child(spec)}
            if run["outcome"] == "trained":
                run |= extrapolated(trial, run["steps"], lengths, width)
            elif run["outcome"] == "out of memory" and trial["cap_gib"]:
                # Try the next size only now: a run that fits a card also fits a larger one.
                queue.appendleft({**trial, "cap_gib": CAPS[CAPS.index(trial["cap_gib"]) + 1]})
            result["runs"].append(run)
            save("gpu-qlora", result, markdown(result["runs"], about, note), asked.out or RESULTS)
            print(f"{time.monotonic() - started:5.0f} s  {trial}: {run['outcome']} {run.get('error', '')}", flush=True)
    print(markdown(result["runs"], about, note))


if __name__ == "__main__":
    main()
