"""Run comparisons, an ablation and transfer experiments on real reviews, and write docs/results.

    python benchmarks/evidence.py [--jobs 1] [--only NAME ...]

Needs ../shared/data. Each experiment is one command of the package, which is printed. An interrupted experiment resumes when the script is
run again. Those with all-MiniLM-L6-v2 take half an hour on a GPU with several parallel jobs, or a day on two cores; the others take another
day on two cores, and read the weights that benchmarks/weights.py assembles.
"""

from __future__ import annotations

import argparse
import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import weights
from _results import RESULTS, ROOT, SHARED

from reviewguard.experiments.candidates import GROUPS

#: Relative, since the commands run from the root of the project and appear in reports.
DATA = Path("..", "shared", "data")

GENERATORS = [f"reviews_{name}.csv" for name in ("gpt2", "deepseek", "glm", "lfm")]
#: Training rows of the ablation, and of the comparison with larger encoders, limited for two cores.
ABLATED_ROWS, COMPARED_ROWS = 8000, 2000
FEWER, FEWEST = (f"reviews_gpt2_{count}.csv" for count in (ABLATED_ROWS, COMPARED_ROWS))
#: Rows of each language and class in the multilingual experiment, limited for two cores.
LANGUAGE_ROWS = {"train": 100, "validation": 20, "test": 120}
LANGUAGES = "reviews_multilingual_small.csv"
#: Training, validation and scored rows by which the defaults of presets are selected. All are training rows of the published split.
SELECTION_ROWS = {"train": 1200, "validation": 200, "test": 1200}
SELECTION = "reviews_gpt2_selection.csv"
#: Folder of all runs.
WORK = Path("build", "evidence")
#: Presets whose weights are read from local folders, with the name of the folder.
LOCAL = {
    **{f"mpnet-{kind}": "mpnet" for kind in ("logreg", "svm", "mlp", "finetune", "qlora")},
    **{f"e5-{kind}": "e5" for kind in ("logreg", "finetune")},
    "smollm2-qlora": "smollm2",
    "gemma3-qlora": "gemma3",
    # Only where MiniLM has no package, as on the machine of benchmarks/gpu.
    **({"minilm-finetune": "minilm"} if (weights.cache() / "minilm").is_dir() else {}),
}


def local(name: str) -> str:
    """The recipe of a candidate on local weights."""
    preset, *settings = name.split("+")
    return "+".join([str(WORK / "recipes" / f"{preset}.toml") if preset in LOCAL else preset, *settings])


def varied(preset: str, setting: str, *values: str) -> list[str]:
    """Candidates that differ in one setting."""
    return [local(f"{preset}+{setting}={value}") for value in values]


def experiments(full: bool = False) -> dict[str, list[Any]]:
    """Commands without the output folder, by name in docs/results.

    Args:
        full: Whether those with larger encoders use all rows and three seeds, for a GPU.
    """
    rows, seeds = (DATA / "reviews_gpt2.csv", "42,43,44") if full else (WORK / FEWEST, "42")
    return {
        "compare-minilm": ["compare", DATA / "reviews_gpt2.csv", "--presets", "minilm"],
        "ablate-qlora": [
            "ablate",
            WORK / FEWER,
            "--preset",
            "minilm-qlora",
            *("--vary", "lora.r=4,16,32,64"),
            *("--vary", 'lora.target_modules=["query","value"],["query","key","value"],["query","key","value","dense"]'),
            *("--vary", "lora.rank_stabilized=true,false"),
            *("--vary", "adapter=none,lora,qlora"),
            *("--vary", "loop.epochs=1,2,3,5"),
            *("--vary", "data.normalization=typography,study,none"),
            *("--vary", "data.near_duplicates=0,0.8"),
        ],
        "transfer-generators": [
            "transfer",
            *(DATA / name for name in GENERATORS),
            *("--presets", "minilm-finetune", "--seeds", "42,43,44"),
        ],
        "transfer-languages": [
            "transfer",
            DATA / "reviews_multilingual.csv",
            *("--by", "language", "--presets", "minilm-logreg", "--max-fpr", "0.05"),
        ],
        "presets": [
            "compare",
            WORK / SELECTION,
            "--presets",
            ",".join(
                [
                    *varied("e5-logreg", "C", "1", "10", "100"),
                    *varied("mpnet-logreg", "C", "1", "10"),
                    *varied("mpnet-svm", "C", "1", "10"),
                    *varied("e5-finetune", "loop.learning_rate", "5e-5", "1e-4", "2e-4"),
                    *varied("mpnet-finetune", "loop.learning_rate", "2e-5", "5e-5", "1e-4"),
                    *varied("mpnet-qlora", "loop.learning_rate", "2e-4", "5e-4"),
                    *varied("smollm2-qlora", "loop.learning_rate", "2e-4", "5e-4"),
                    *varied("gemma3-qlora", "loop.learning_rate", "2e-4", "5e-4"),
                ]
            ),
            *("--seeds", "42"),
        ],
        "compare-mpnet": [
            "compare",
            rows,
            "--presets",
            ",".join(map(local, GROUPS["study-mpnet"])),
            *("--seeds", seeds),
        ],
        "multilingual": [
            "transfer",
            DATA / "reviews_multilingual.csv" if full else WORK / LANGUAGES,
            *(
                "--by",
                "language",
                "--presets",
                ",".join(map(local, ("e5-finetune", "minilm-finetune"))),
                "--seeds",
                seeds,
                "--max-fpr",
                "0.02",
            ),
        ],
    }


def write_rows(work: Path) -> None:
    """Write the files of the experiments that use only some of the rows, evenly spaced."""
    with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    selected = _spread(train, sum(SELECTION_ROWS.values()))
    splits = [split for split, count in SELECTION_ROWS.items() for _ in range(count)]
    # Rows of the file are not shuffled, so the splits are dealt out with a fixed stride.
    order = sorted(range(len(selected)), key=lambda row: row * 7919 % len(selected))
    selection = [{**selected[row], "split": split} for row, split in zip(order, splits, strict=True)]
    others = [row for row in rows if row["split"] != "train"]
    for name, content in (
        (FEWER, _spread(train, ABLATED_ROWS) + others),
        (FEWEST, _spread(train, COMPARED_ROWS) + others),
        (SELECTION, selection),
        (LANGUAGES, _few_of_each_language()),
    ):
        with open(work / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, content[0])
            writer.writeheader()
            writer.writerows(content)


def _few_of_each_language() -> list[dict[str, str]]:
    with open(SHARED / "reviews_multilingual.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = [split for split, count in LANGUAGE_ROWS.items() for _ in range(count)]
    chosen = []
    for language, label in sorted({(row["language"], row["label"]) for row in rows}):
        group = _spread([row for row in rows if (row["language"], row["label"]) == (language, label)], len(splits))
        chosen += [{**row, "split": splits[position * 7919 % len(splits)]} for position, row in enumerate(group)]
    return chosen


def _spread(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    return [rows[i * len(rows) // count] for i in range(count)]


def write_recipes(work: Path, used: str) -> None:
    """Write the recipes that an experiment names: presets with the weights of a local folder in place of the Hub's."""
    for folder in ("recipes", "weights"):
        (work / folder).mkdir(exist_ok=True)
    for preset, name in LOCAL.items():
        if f"{preset}.toml" in used:
            # A relative path: results name it.
            link = work / "weights" / name
            if not link.exists():
                link.symlink_to(weights.locate(name))
            text = (ROOT / "reviewguard" / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
            text = re.sub(r"^(revision|weights_sha256) = .*\n", "", text, flags=re.MULTILINE)
            text = re.sub(r"^repo = .*$", f'repo = "{(WORK / "weights" / name).as_posix()}"', text, flags=re.MULTILINE)
            (work / "recipes" / f"{preset}.toml").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the experiments, and copy the reports to the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs; a GPU has memory for several")
    parser.add_argument("--only", nargs="+", choices=list(experiments()), default=list(experiments()), metavar="NAME")
    parser.add_argument("--full", action="store_true", help="all rows and three seeds for the larger encoders; for a GPU")
    arguments = parser.parse_args()
    commands = experiments(arguments.full)
    work = ROOT / WORK
    work.mkdir(parents=True, exist_ok=True)
    write_rows(work)
    for name in arguments.only:
        write_recipes(work, str(commands[name]))
        command = ["-m", "reviewguard", *map(str, commands[name]), "--out", str(WORK / name), "--jobs", str(arguments.jobs)]
        print(f"$ {shlex.join(command)}", flush=True)
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
        shutil.copyfile(work / name / "results.jsonl", RESULTS / f"{name}.jsonl")
        for path in (work / name).glob("report*.*"):
            if path.suffix == ".md":
                text = path.read_text(encoding="utf-8").replace("(report-", f"({name}-")
                (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(path, RESULTS / path.name.replace("report", name, 1))


if __name__ == "__main__":
    main()
