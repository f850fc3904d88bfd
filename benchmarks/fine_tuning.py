"""Fine-tune MiniLM on real reviews, every weight and QLoRA, and write docs/results/fine-tuning.

    python benchmarks/fine_tuning.py [--work build/fine-tuning] [--paired-rows 2000]

Needs ../shared/data/reviews_gpt2.csv, whose column `split` is respected. Each preset goes the whole way through the command line:
trained, stopped by SIGTERM in the middle and resumed, evaluated, merged, exported, and the export predicts without torch. Then
both presets are trained on the same smaller samples with three seeds, and compared row by row. Hours on two cores; whatever is
finished is kept in the working folder, and a run that was cut short goes on from its checkpoint.
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
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, ROOT, SHARED, cell, describe, machine, write
from sklearn.model_selection import train_test_split

PRESETS = ("minilm-finetune", "minilm-qlora")
DATA = SHARED / "reviews_gpt2.csv"
METRICS = ("f1", "accuracy", "precision", "recall", "roc_auc")
SEEDS = (42, 43, 44)
#: Seconds after which a run is stopped once.
INTERRUPT_AFTER = 400
#: Validation rows that the paired runs choose their epoch by; all of them are scored at the end.
EPOCH_ROWS = 1000
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


def train(work: Path, preset: str, seed: int, data: Path, interrupt: bool) -> dict[str, Any]:
    """Train, or go on with what an earlier run of this script began; returns the training report."""
    report = work / "report.json"
    if not report.exists():
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "reviewguard", "train", str(data), "--preset", preset, "--set", f"seed={seed}", "--json"]
        command += ["--out", str(work / "model"), "--run-dir", str(work / "run"), "--resume-if-possible"]
        if interrupt and not list((work / "run").glob("checkpoint-*")):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            time.sleep(INTERRUPT_AFTER)
            process.send_signal(signal.SIGTERM)
            assert process.wait() in (0, 128 + signal.SIGTERM)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        report.write_bytes(done.stdout)
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def once(path: Path, *arguments: object) -> dict[str, Any]:
    """Run a command whose result is kept."""
    if not path.exists():
        path.write_text(json.dumps(reviewguard(*arguments)))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def sample(work: Path, rows: list[dict[str, str]], count: int, seed: int) -> Path:
    """A file with some of the training rows, and some of the validation rows to choose the epoch by, both by label."""
    kept = []
    for split, size in (("train", count), ("validation", EPOCH_ROWS)):
        of_split = [row for row in rows if row["split"] == split]
        kept += train_test_split(of_split, train_size=size, stratify=[row["label"] for row in of_split], random_state=seed)[0]
    return save_csv(work / f"sample-{count}-{seed}.csv", kept)


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


def whole_way(work: Path, preset: str, validation: Path, truth: list[str]) -> dict[str, Any]:
    """Train, resume, evaluate, merge, export, predict without torch."""
    report = train(work, preset, SEEDS[0], DATA, interrupt=True)
    merged = {}
    if preset.endswith("qlora"):
        merged = once(work / "merged.json", "merge", work / "model", DATA, "--split", "validation", "--out", work / "merged")
    export = once(work / "export.json", "export", work / "model", "--out", work / "export")
    labels = predictions(work / "export", validation)
    exported = {"accuracy": float(np.mean(np.array(labels) == np.array(truth))), **export}
    return {"training": report, "merge": merged, "export": exported}


def paired(work: Path, rows: list[dict[str, str]], count: int, validation: Path, truth: list[str]) -> dict[str, Any]:
    """Accuracy of QLoRA less that of the full fine-tune, over the same validation rows, seed by seed."""
    right: dict[str, list[np.ndarray]] = {preset: [] for preset in PRESETS}
    for seed in SEEDS:
        data = sample(work, rows, count, seed)
        for preset in PRESETS:
            folder = work / f"{preset}-{count}-{seed}"
            train(folder, preset, seed, data, interrupt=False)
            once(folder / "export.json", "export", folder / "model", "--out", folder / "export")
            right[preset].append(np.array(predictions(folder / "export", validation)) == np.array(truth))
    differences = np.mean(right["minilm-qlora"], axis=0) - np.mean(right["minilm-finetune"], axis=0)
    rng = np.random.default_rng(0)
    draws = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(2000)]
    low, high = np.percentile(draws, (2.5, 97.5))
    return {
        "rows": count,
        "accuracy": {preset: [float(one.mean()) for one in of] for preset, of in right.items()},
        "difference": {"value": float(differences.mean()), "low": float(low), "high": float(high)},
    }


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fine-tuning", help="where everything is kept")
    parser.add_argument("--paired-rows", type=int, default=2000, help="training rows of the comparison; 0 leaves it out")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    with open(DATA, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held_out = [row for row in rows if row["split"] == "validation"]
    validation, truth = save_csv(work / "validation.csv", held_out), [row["label"] for row in held_out]
    results = {preset: whole_way(work / preset, preset, validation, truth) for preset in PRESETS}
    comparison = paired(work, rows, arguments.paired_rows, validation, truth) if arguments.paired_rows else None
    about = machine(("peft", "accelerate", "bitsandbytes"))
    heads = json.loads((RESULTS / "embedding-heads.json").read_text(encoding="utf-8"))["reports"]
    reports = {**heads, **{preset: result["training"] for preset, result in results.items()}}
    data = {"file": DATA.name, "sha256": hashlib.sha256(DATA.read_bytes()).hexdigest()}
    result = {"machine": about, "data": data, "results": results, "paired": comparison}
    for preset in PRESETS:
        shutil.copyfile(work / preset / "run" / "metrics.jsonl", RESULTS / log_of(preset))
    write("fine-tuning", result, page(reports, results, comparison, about))


def log_of(preset: str) -> str:
    """Name of the file with every figure that a run logged."""
    return f"fine-tuning-{preset}.jsonl"


def page(reports: dict[str, Any], results: dict[str, Any], comparison: dict[str, Any] | None, about: dict[str, Any]) -> str:
    """The results as Markdown."""
    first = results[PRESETS[0]]["training"]
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
        "same validation rows, which flatters them a little; the rows above them are those of [Embedding heads](embedding-heads.md).",
        "\n".join(table),
        "These figures are for the generator that the models were trained on. They say nothing about text of newer language models.",
    ]
    for preset, result in results.items():
        parts += [f"## {preset}", *story(result), f"All that was logged on the way: [{log_of(preset)}]({log_of(preset)})."]
    if comparison is not None:
        accuracies = "; ".join(
            f"{name} {', '.join(f'{100 * value:.2f}' for value in values)}" for name, values in comparison["accuracy"].items()
        )
        parts += [
            "## QLoRA against the full fine-tune",
            f"Both presets on the same {comparison['rows']} training rows, drawn by label with seeds {', '.join(map(str, SEEDS))}, which "
            f"are also the seeds of training; the epoch is chosen by {EPOCH_ROWS} validation rows. Accuracy on all validation rows, in percent, seed by seed: {accuracies}. Difference of "
            f"the means, QLoRA less full: {cell(comparison['difference'])} points (paired bootstrap over the rows).",
        ]
    made = "Made by `python benchmarks/fine_tuning.py`; figures in [fine-tuning.json](fine-tuning.json)."
    return "\n\n".join([*parts, describe(about), made]) + "\n"


def story(result: dict[str, Any]) -> list[str]:
    """What one preset's run was like."""
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
