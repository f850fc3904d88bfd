"""Fine-tune MiniLM on real reviews, every weight and by adapters, and write docs/results/fine-tuning.

    python benchmarks/fine_tuning.py [--work build/fine-tuning] [--jobs 1]

Needs ../shared/data/reviews_gpt2.csv, whose column `split` is respected. The arms are a full fine-tune, QLoRA, and the same adapters
on an encoder that is not quantised, each with three seeds. The first seed goes the whole way through the command line: trained,
stopped by SIGTERM in the middle and resumed, evaluated, merged, exported, and the export predicts without torch. Minutes on a GPU
with several jobs side by side, most of a day on two cores; whatever is finished is kept in the working folder, and a run that was
cut short resumes from its checkpoint.
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

#: How each is trained: a preset, and what is set beside it.
ARMS = {"minilm-finetune": ("minilm-finetune",), "minilm-qlora": ("minilm-qlora",)}
ARMS["minilm-lora"] = ("minilm-qlora", "--set", "adapter=lora")
REFERENCE = "minilm-finetune"
DATA = SHARED / "reviews_gpt2.csv"
METRICS = ("f1", "accuracy", "precision", "recall", "roc_auc")
SEEDS = (42, 43, 44)
#: Steps after which the runs of the first seed are stopped once: not at the end of an epoch.
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
    """Run a command of the package in a process of its own; returns what it prints as JSON."""
    command = [sys.executable, "-m", "reviewguard", *map(str, arguments), "--json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def train(work: Path, arm: str, seed: int) -> dict[str, Any]:
    """Train, or go on with what an earlier run of this script began; returns the training report."""
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
    """The last step that a run has logged."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def once(path: Path, *arguments: object) -> dict[str, Any]:
    """Run a command whose result is kept."""
    if not path.exists():
        path.write_text(json.dumps(reviewguard(*arguments)))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def save_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def predictions(model: Path, validation: Path) -> list[str]:
    """Labels of an export, given in a process that never imports torch."""
    command = [sys.executable, "-c", TORCH_FREE, str(model), str(validation)]
    labels: list[str] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return labels


def way(work: Path, arm: str, seed: int, validation: Path, truth: list[str]) -> dict[str, Any]:
    """Train, resume, evaluate, merge, export, predict without torch."""
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
    """Accuracy less that of the reference, of arms whose answers (seeds, rows) are right or not: over the same rows, seeds averaged."""
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
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fine-tuning", help="where everything is kept")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; on a GPU several fit")
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
    """Name of the file with every figure that a run logged."""
    return f"fine-tuning-{arm}.jsonl"


def page(reports: dict[str, Any], results: dict[str, Any], comparison: dict[str, Any], about: str, jobs: int) -> str:
    """The results as Markdown."""
    first = results[REFERENCE]["training"]
    validation, positive = first["results"]["validation"], first["results"]["validation"]["positive"]
    scored = {"TF-IDF, linear SVM": validation["baseline"]}
    scored |= {name: report["results"]["validation"]["model"] for name, report in reports.items()}
    table = ["| model | " + " | ".join(METRICS) + " |", "| --- " * (len(METRICS) + 1) + "|"]
    table += [f"| {name} | " + " | ".join(cell(s["metrics"][m]) for m in METRICS) + " |" for name, s in scored.items()]
    parts = [
        "# Fine-tuning on real reviews",
        f"Amazon reviews against GPT-2-era generated ones (Salminen et al. 2022, CC BY 4.0), column `split` respected: "
        f"{first['rows']['train']} rows trained on, all {validation['rows']} validation rows scored, none dropped. Metrics are of "
        f"the class `{positive}`, in percent, with 95 % bootstrap intervals. Fine-tuned models keep their best epoch by macro F1 on the "
        "same validation rows, which flatters them a little.",
        "\n".join(table),
        "These figures are for the generator that the models were trained on. They say nothing about text of newer language models.",
    ]
    accuracies = comparison["accuracy"]
    lines = [f"| model | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean | less {REFERENCE} |"]
    lines += ["| --- " * (len(SEEDS) + 3) + "|"]
    for arm, values in accuracies.items():
        cells = [f"{100 * value:.2f}" for value in (*values, np.mean(values))]
        difference = cell(comparison["difference"][arm]) if arm != REFERENCE else ""
        lines.append(f"| {arm} | {' | '.join(cells)} | {difference} |")
    parts += [
        "## Adapters against the full fine-tune",
        "Accuracy on the validation rows in percent, predicted by the exports without torch; the difference of the means in points, "
        "with a paired bootstrap over the rows. `minilm-lora` is the preset `minilm-qlora` with `adapter=lora`: without NF4.",
        "\n".join(lines),
    ]
    for arm, result in results.items():
        parts += [f"## {arm}", *story(result), f"All that was logged on the way: [{log_of(arm)}]({log_of(arm)})."]
    made = f"Made by `python benchmarks/fine_tuning.py --jobs {jobs}`; figures in [fine-tuning.json](fine-tuning.json)."
    return "\n\n".join([*parts, about, made]) + "\n"


def story(result: dict[str, Any]) -> list[str]:
    """What the run of the first seed was like."""
    report, export = result["training"], result["export"]
    history = report["history"]
    lines = ["| epoch | step | training loss | validation macro F1 | accuracy |", "| --- | --- | --- | --- | --- |"]
    for epoch in history["epochs"]:
        kept = " (kept)" if epoch["step"] == history["kept"] else ""
        lines.append(
            f"| {epoch['epoch']}{kept} | {epoch['step']} | {epoch['loss']:.4f} | {epoch['f1']:.4f} | {100 * epoch['accuracy']:.2f} |"
        )
    resumed = "; ".join(f"at step {one['step']}, {one['rung']}" for one in history["resumed"] if one["rung"] != "from the start")
    text = (
        f"{history['trainable']:,} of {history['parameters']:,} parameters trained in {history['precision']} on {history['device']}. "
        f"Stopped by a signal and resumed: {resumed or 'never'}. Plan: {history['memory']}; peak of the whole process: "
        f"{report['peak_memory_mib']:.0f} MiB; {report['seconds']:.0f} s since the last start. "
        f"Exported as ONNX: largest logit difference {export['graphs']['fp32']['logits']:.1e}; accuracy predicted without torch "
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
