"""Run a comparison, an ablation and two transfer experiments on real reviews, and write docs/results.

    python benchmarks/evidence.py [--jobs 1] [--only NAME ...]

Needs ../shared/data. Each experiment is one command of the package, which is printed. An interrupted experiment resumes when the script is
run again. All of them take half an hour on a GPU with several parallel jobs, or a day on two cores. The encoder is all-MiniLM-L6-v2, which
runs anywhere.
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

#: Relative, since the commands run from the root of the project and appear in reports.
DATA = Path("..", "shared", "data")

GENERATORS = [f"reviews_{name}.csv" for name in ("gpt2", "deepseek", "glm", "lfm")]
#: Training rows of the ablation, limited for two cores.
ABLATED_ROWS = 8000
FEWER = f"reviews_gpt2_{ABLATED_ROWS}.csv"
#: Folder of all runs.
WORK = Path("build", "evidence")
#: Commands without the output folder, by name in docs/results.
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
    """Write the rows of the ablation: all scored rows and evenly spaced training rows."""
    with open(SHARED / "reviews_gpt2.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    selected = [train[i * len(train) // ABLATED_ROWS] for i in range(ABLATED_ROWS)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(selected + [row for row in rows if row["split"] != "train"])


def main() -> None:
    """Run the experiments, and copy the reports to the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs; a GPU has memory for several")
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
