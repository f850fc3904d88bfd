"""Run the experiments on real reviews, and write docs/results: a comparison, an ablation, and two transfer matrices.

    python benchmarks/evidence.py [--jobs 1] [--only NAME ...]

Needs ../shared/data. Each is one command of the package, which prints it; all of them can be stopped, and go on where they were: on a
GPU with several jobs side by side it is half an hour, on two cores a day. The encoder is all-MiniLM-L6-v2, which runs anywhere.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from _results import RESULTS, ROOT, SHARED

#: The commands are run from the root of the project, and say so in the report.
DATA = Path("..", "shared", "data")

GENERATORS = [f"reviews_{name}.csv" for name in ("gpt2", "deepseek", "glm", "lfm")]
#: Training rows of the ablation: what two cores can do.
ABLATED_ROWS = 8000
FEWER = f"reviews_gpt2_{ABLATED_ROWS}.csv"
#: Where everything is kept.
WORK = Path("build", "evidence")
#: Name in docs/results, and the command without its folder.
EXPERIMENTS = {
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
}


def fewer(path: Path) -> None:
    """The rows that the ablation trains on: every one that is scored, and evenly spaced ones of the others."""
    with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    kept = [train[i * len(train) // ABLATED_ROWS] for i in range(ABLATED_ROWS)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept + [row for row in rows if row["split"] != "train"])


def main() -> None:
    """Run, and copy what the documentation shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; on a GPU several fit")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME")
    arguments = parser.parse_args()
    work = ROOT / WORK
    work.mkdir(parents=True, exist_ok=True)
    fewer(work / FEWER)
    for name in arguments.only:
        command = ["-m", "reviewguard", *map(str, EXPERIMENTS[name]), "--out", str(WORK / name), "--jobs", str(arguments.jobs)]
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
