"""Train small decoders under QLoRA, resume, merge, export and predict without torch, and write docs/results/decoders.

    python benchmarks/decoders.py [--only smollm2 gemma3]

Needs ../shared/data, the weights that benchmarks/weights.py assembles, and the environment .venv-base (`make .venv-base/.installed`), which
has no torch. Takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import evidence
from _results import ROOT, describe, machine, run_apart, write

#: Rows of `evidence.SELECTION` to train on, for the choice of the epoch, and to compare probabilities on.
ROWS, VALIDATION, SCORED = 480, 96, 200
STOP_AT = 14
LIMIT = 3600
NAMES = {"smollm2": "SmolLM2-135M (Llama)", "gemma3": "Gemma 3 270M"}


def measured(name: str, pruned: bool) -> dict[str, Any]:
    """One decoder, with its published or a pruned vocabulary."""
    work = ROOT / evidence.WORK
    recipe = evidence.local(f"{name}-qlora")
    settings = {"loop.epochs": 1, "encoder.prune_vocabulary": pruned, "encoder.max_length": 256}
    with tempfile.TemporaryDirectory() as scratch:
        spec = {
            "name": name,
            "data": str(work / evidence.SELECTION),
            "recipe": str(ROOT / recipe),
            "settings": settings,
            "rows": ROWS,
            "validation": VALIDATION,
            "scored": SCORED,
            "exported": f"{scratch}/exported",
            "expected": f"{scratch}/expected.npy",
            "models": [f"{scratch}/straight", f"{scratch}/resumed"],
        }
        result = {}
        for kind, stop_at in (("straight", 0), ("resumed", STOP_AT)):
            run = {**spec, "do": "train", "run": f"{scratch}/run-{kind}", "out": f"{scratch}/{kind}", "stop_at": stop_at}
            result[kind] = require(run_apart("_decoder.py", run, LIMIT), f"{name}: {kind}")
        result["check"] = require(run_apart("_decoder.py", {**spec, "do": "check"}, LIMIT), f"{name}: check")
        base = ROOT / ".venv-base" / "bin" / "python"
        result["export"] = require(
            run_apart("_decoder.py", {**spec, "do": "predict"}, LIMIT, python=str(base)), f"{name}: predict"
        )
    return result


def require(result: dict[str, Any], what: str) -> dict[str, Any]:
    """Stop if a process failed."""
    if result["outcome"] != "done":
        raise SystemExit(f"{what}: {result}")
    print(f"{what}: {result}", flush=True)
    return result


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES), metavar="NAME")
    names = parser.parse_args().only
    work = ROOT / evidence.WORK
    work.mkdir(parents=True, exist_ok=True)
    evidence.write_rows(work)
    evidence.write_recipes(work, " ".join(f"{name}-qlora.toml" for name in names))
    runs = {f"{name}{' pruned' * pruned}": measured(name, pruned) for name in names for pruned in (False, True)}
    about = machine(("peft", "bitsandbytes", "gguf"))
    write("decoders", {"machine": about, "runs": runs}, page(runs, describe(about)))


def page(runs: dict[str, dict[str, Any]], about: str) -> str:
    """The page of results."""

    def title(key: str) -> str:
        name, *pruned = key.split()
        return NAMES[name] + (", pruned vocabulary" if pruned else "")

    memory = [
        f"| {title(key)} | {run['straight']['model_mib']:.0f} | {run['straight']['plan_gib']:.2f} | {run['straight']['peak_gib']:.2f} | "
        f"{100 * (run['straight']['plan_gib'] / run['straight']['peak_gib'] - 1):+.0f} % | {run['straight']['seconds']:.0f} |"
        for key, run in runs.items()
    ]
    steps = {
        "resumed after an interruption": lambda run: run["check"]["resumed"],
        "merged in float32": lambda run: run["check"]["merged"],
        "exported, without torch": lambda run: run["export"],
        "transformers pipeline": lambda run: run["check"]["pipeline"],
    }
    changes = [
        f"| {title(key)} | {what} | {of(run)['probability']:.1e} | {100 * of(run)['equal_labels']:.1f} % |"
        for key, run in runs.items()
        for what, of in steps.items()
    ]
    chat = [
        f"| {title(key)} | {run['check']['chat']['changed']:.2f} | {run['check']['chat']['neighbours']:.1e} |"
        for key, run in runs.items()
    ]
    accuracy = ", ".join(f"{title(key)} {100 * run['straight']['accuracy']:.0f} %" for key, run in runs.items())
    return f"""# Decoders

Two small decoders are trained under QLoRA with their presets, interrupted, resumed, merged, exported and loaded elsewhere. The weights are real, dequantised from GGUF files. One epoch on
{ROWS} reviews shows that the whole path works; it is too little training to compare accuracy ({accuracy} of {VALIDATION} validation rows, with wide intervals).

## Memory and time

The planned memory is what `train` announces before it starts. The peak is that of the whole process.

| model | weights (MiB) | planned (GiB) | peak (GiB) | difference | seconds |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(memory)}

## Fidelity

The largest change of a probability and the share of equal labels on {SCORED} reviews. The resumed run is compared with an uninterrupted one, the merged model with its adapters on 4-bit weights, and the
export and the pipeline with the merged model.

| model | step | largest change | equal labels |
| --- | --- | --- | --- |
{chr(10).join(changes)}

## Chat tokens in a review

Tokens of the chat template are typed into four reviews of a batch of eight.

| model | largest change of these four | of the other four |
| --- | --- | --- |
{chr(10).join(chat)}

{about}

Made by `python benchmarks/decoders.py`; data in [decoders.json](decoders.json).
"""


if __name__ == "__main__":
    main()
