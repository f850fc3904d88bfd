"""Predict the reviews in a CSV file with the built-in model, without training, torch or network access.

The reviews were written for this project as a demonstration, some in the style of language models. The predictions are not
evidence of the model's accuracy.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

REVIEWS = Path(__file__).with_name("incoming_reviews.csv")
OUT = Path("demo-output") / "predictions.csv"


def main() -> None:
    """Run the `predict` command and print the predictions."""
    OUT.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    print(f"reviewguard predict {REVIEWS.name} --out {OUT}", flush=True)
    subprocess.run([sys.executable, "-m", "reviewguard", "predict", str(REVIEWS), "--out", str(OUT)], check=True)
    seconds = time.perf_counter() - started
    with open(OUT, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    print(f"\n{len(rows)} reviews in {seconds:.1f} s in total:\n")
    for row in rows:
        print(f"  {row['predicted_label']} {float(row['predicted_score']):.2f}  {row['decision']:12}  {row['text'][:80]}")


if __name__ == "__main__":
    main()
