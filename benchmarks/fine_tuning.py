"""Fine-tune MiniLM on real reviews, with all weights and with adapters, and write docs/results/fine-tuning.

    python benchmarks/fine_tuning.py [--work build/fine-tuning] [--jobs 1]

Needs ../shared/data/reviews_gpt2.csv and uses its column `split`. The arms are full fine-tuning, QLoRA, and the same adapters on an
encoder that is not quantised, each with three seeds. The first seed tests the full workflow of the command line: training, a stop by
SIGTERM, resumption, evaluation, merge, export, and prediction without torch. Takes minutes on a GPU with several parallel jobs, or most
of a day on two cores. Finished results stay in the working folder, and interrupted runs resume from their checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, ROOT, SHARED, cell, describe, machine, write

#: Preset and settings of each arm.
ARMS = {"minilm-finetune": ("minilm-finetune",), "minilm-qlora": ("minilm-qlora",)}
ARMS["minilm-lora"] = ("minilm-qlora", "--set", "adapter=lora")
REFERENCE = "minilm-finetune"
DATA = SHARED / "reviews_gpt2.csv"
METRICS = ("f1", "accuracy", "precision", "recall", "roc_auc")
SEEDS = (42, 43, 44)
#: Step at which the runs of the first seed are stopped once, in the middle of an epoch.
STOPPED_AT = 500
TORCH_FREE = """
import csv, json, sys
from reviewguard import Classifier
with open(sys.argv[2], encoding="utf-8", newline="") as file:
    texts = [row["text"] for row in csv.DictReader(file)]
labels = Classifier.from_pretrained(sys.argv[1]).predict(texts).tolist()
assert not {"torch", "transformers", "sklearn"} & set(sys.modules)
print(json.dumps(labels))
"""


def reviewguard(*arguments: object) -> dict[str, Any]:
    """Run a command of the package in a separate process; returns its JSON output."""
    command = [sys.executable, "-m", "reviewguard", *map(str, arguments), "--json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def train(work: Path, arm: str, seed: int) -> dict[str, Any]:
    """Train, or resume an earlier run of this script; returns the training report."""
    report = work / "report.json"
    if not report.exists():
        work.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "reviewguard",
            "train",
            str(DATA),
            "--preset",
            *ARMS[arm],
            "--set",
            f"seed={seed}",
            "--json",
        ]
        command += ["--out", str(work / "model"), "--run-dir", str(work / "run"), "--resume-if-possible"]
        if seed == SEEDS[0] and not list((work / "run").glob("checkpoint-*")):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while process.poll() is None and reached(work / "run" / "metrics.jsonl") < STOPPED_AT:
                time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        report.write_bytes(done.stdout)
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def reached(journal: Path) -> int:
    """The last logged step of a run."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def once(path: Path, *arguments: object) -> dict[str, Any]:
    """Run a command, and cache its result."""
    if not path.exists():
        path.write_text(json.dumps(reviewguard(*arguments)))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def save_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def predictions(model: Path, validation: Path) -> list[str]:
    """Labels predicted by an export, in a process without torch."""
    command = [sys.executable, "-c", TORCH_FREE, str(model), str(validation)]
    labels: list[str] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return labels


def way(work: Path, arm: str, seed: int, validation: Path, truth: list[str]) -> dict[str, Any]:
    """Train, resume, evaluate, merge, export, and predict without torch."""
    work = work / f"{arm}-{seed}"
    report = train(work, arm, seed)
    del report["history"]["run_dir"]  # a path of this machine
    merged = {}
    if seed == SEEDS[0] and arm != REFERENCE:
        merged = once(work / "merged.json", "merge", work / "model", DATA, "--split", "validation", "--out", work / "merged")
    export = once(work / "export.json", "export", work / "model", "--out", work / "export")
    right = np.array(predictions(work / "export", validation)) == np.array(truth)
    return {"training": report, "merge": merged, "export": export, "right": right}


def paired(right: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy of each arm minus that of the reference, from correct predictions (seeds, rows); seeds are averaged."""
    rng = np.random.default_rng(0)
    differences = {}
    for arm, answers in right.items():
        if arm != REFERENCE:
            each = answers.mean(axis=0) - right[REFERENCE].mean(axis=0)
            draws = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(2000)]
            low, high = np.percentile(draws, (2.5, 97.5))
            differences[arm] = {"value": float(each.mean()), "low": float(low), "high": float(high)}
    return {"accuracy": {arm: of.mean(axis=1).tolist() for arm, of in right.items()}, "difference": differences}


def main() -> None:
    """Train, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fine-tuning", help="folder for all results")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs; a GPU has memory for several")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with open(DATA, encoding="utf-8", newline="") as file:
        held_out = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    validation, truth = save_csv(work / "validation.csv", held_out), [row["label"] for row in held_out]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        ways = {(arm, seed): pool.submit(way, work, arm, seed, validation, truth) for seed in SEEDS for arm in ARMS}
        done = {one: future.result() for one, future in ways.items()}
    comparison = paired({arm: np.array([done[arm, seed].pop("right") for seed in SEEDS]) for arm in ARMS})
    for (arm, seed), one in done.items():
        one["export"]["accuracy"] = comparison["accuracy"][arm][SEEDS.index(seed)]
    results = {arm: done[arm, SEEDS[0]] for arm in ARMS}
    about = machine(("peft", "accelerate", "bitsandbytes"))
    heads = json.loads((RESULTS / "embedding-heads.json").read_text(encoding="utf-8"))["reports"]
    reports = {**heads, **{arm: result["training"] for arm, result in results.items()}}
    data = {"file": DATA.name, "sha256": hashlib.sha256(DATA.read_bytes()).hexdigest()}
    result = {"machine": about, "jobs": arguments.jobs, "data": data, "results": results, "paired": comparison}
    for arm in ARMS:
        shutil.copyfile(work / f"{arm}-{SEEDS[0]}" / "run" / "metrics.jsonl", RESULTS / log_of(arm))
    write("fine-tuning", result, page(reports, results, comparison, describe(about), arguments.jobs))


def log_of(arm: str) -> str:
    """Name of the log file of an arm."""
    return f"fine-tuning-{arm}.jsonl"


def page(reports: dict[str, Any], results: dict[str, Any], comparison: dict[str, Any], about: str, jobs: int) -> str:
    """Render the results as Markdown."""
    first = results[REFERENCE]["training"]
    validation, positive = first["results"]["validation"], first["results"]["validation"]["positive"]
    scored = {"TF-IDF, linear SVM": validation["baseline"]}
    scored |= {name: report["results"]["validation"]["model"] for name, report in reports.items()}
    table = ["| model | " + " | ".join(METRICS) + " |", "| --- " * (len(METRICS) + 1) + "|"]
    table += [f"| {name} | " + " | ".join(cell(s["metrics"][m]) for m in METRICS) + " |" for name, s in scored.items()]
    parts = [
        "# Fine-tuning on real reviews",
        f"Amazon reviews and GPT-2-era generated reviews (Salminen et al. 2022, CC BY 4.0), split by the column `split`: "
        f"{first['rows']['train']} training rows, and all {validation['rows']} validation rows scored, none dropped. Metrics are of "
        f"the class `{positive}`, in percent, with 95 % bootstrap intervals. Fine-tuned models keep the epoch with the best macro F1 on "
        "the same validation rows, so their scores are slightly optimistic.",
        "\n".join(table),
        "These results are for the generator in the training data. They say nothing about texts of newer language models.",
    ]
    accuracies = comparison["accuracy"]
    lines = [f"| model | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean | minus {REFERENCE} |"]
    lines += ["| --- " * (len(SEEDS) + 3) + "|"]
    for arm, values in accuracies.items():
        cells = [f"{100 * value:.2f}" for value in (*values, np.mean(values))]
        difference = cell(comparison["difference"][arm]) if arm != REFERENCE else ""
        lines.append(f"| {arm} | {' | '.join(cells)} | {difference} |")
    parts += [
        "## Adapters and full fine-tuning",
        "Accuracy on the validation rows in percent, predicted by the exports without torch. Differences of the means are in points, "
        "with intervals from a paired bootstrap over the rows. `minilm-lora` is the preset `minilm-qlora` with `adapter=lora`, that is, "
        "without NF4.",
        "\n".join(lines),
    ]
    for arm, result in results.items():
        parts += [f"## {arm}", *story(result), f"Training log: [{log_of(arm)}]({log_of(arm)})."]
    made = f"Made by `python benchmarks/fine_tuning.py --jobs {jobs}`; data in [fine-tuning.json](fine-tuning.json)."
    return "\n\n".join([*parts, about, made]) + "\n"


def story(result: dict[str, Any]) -> list[str]:
    """Details of the run with the first seed."""
    report, export = result["training"], result["export"]
    history = report["history"]
    lines = ["| epoch | step | training loss | validation macro F1 | accuracy |", "| --- | --- | --- | --- | --- |"]
    for epoch in history["epochs"]:
        mark = " (kept)" if epoch["step"] == history["kept"] else ""
        lines.append(
            f"| {epoch['epoch']}{mark} | {epoch['step']} | {epoch['loss']:.4f} | {epoch['f1']:.4f} | {100 * epoch['accuracy']:.2f} |"
        )
    resumed = "; ".join(
        f"at step {one['step']}, {one['restored']}" for one in history["resumed"] if one["restored"] != "from the start"
    )
    text = (
        f"{history['trainable']:,} of {history['parameters']:,} parameters are trained, in {history['precision']} on {history['device']}. "
        f"Resumed after a stop by a signal: {resumed or 'never'}. Memory plan: {history['memory']}. Peak memory of the process: "
        f"{report['peak_memory_mib']:.0f} MiB. Time since the last start: {report['seconds']:.0f} s. "
        f"ONNX export: largest logit difference {export['graphs']['fp32']['logits']:.1e}; accuracy without torch "
        f"{100 * export['accuracy']:.2f}."
    )
    if result["merge"]:
        merge = result["merge"]
        for name in ("trained", "original"):
            change = merge[name]
            text += (
                f" Merged into the {name} base: largest logit change {change['logit']:.2g}, mean {change['mean_logit']:.2g}, "
                f"{change['flips']} of {merge['texts']} labels changed."
            )
    return ["\n".join(lines), text]


if __name__ == "__main__":
    main()
