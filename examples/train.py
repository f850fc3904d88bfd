"""The full workflow: train on a CSV file, evaluate, export, and predict without torch.

The reviews were written for this project as a demonstration. The scores are not evidence of the model's accuracy.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from reviewguard import Classifier

SAMPLE = Path(__file__).with_name("sample_reviews.csv")
OUT = Path("demo-output")


def main() -> None:
    """Train, evaluate, save and export a model, then predict with the export in a separate process without torch."""
    classifier = Classifier.from_pretrained("minilm-logreg")
    print(f"1. training on {SAMPLE.name} (a demonstration, not evidence)\n")
    print(classifier.train(SAMPLE))

    classifier.save(OUT / "model")
    report = classifier.export(OUT / "onnx")
    print(f"\n2. saved to {OUT / 'model'}; exported to {OUT / 'onnx'}\n{report.to_text()}")

    command = ["predict", str(SAMPLE), "--model", str(OUT / "onnx"), "--out", str(OUT / "predictions.csv")]
    print(f"\n3. reviewguard {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "reviewguard", *command], check=True)
    with open(OUT / "predictions.csv", encoding="utf-8", newline="") as file:
        for _, row in zip(range(5), csv.DictReader(file), strict=False):
            print(
                f"   {row['predicted_label']} ({float(row['predicted_score']):.2f}), labelled {row['label']}: {row['text'][:70]}"
            )


if __name__ == "__main__":
    main()
