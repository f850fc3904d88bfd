"""Count the lengths of real reviews, and write benchmarks/review_lengths.json.

    python benchmarks/review_lengths.py

Needs ../shared/data/reviews_gpt2.csv. The file contains counts without texts, so that benchmarks of speed and memory can draw realistic
lengths without the reviews.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
from _results import SHARED

from reviewguard.config import EncoderConfig, load_preset
from reviewguard.data.normalize import typography
from reviewguard.data.tokens import Tokenizer
from reviewguard.models.sources import locate

DATA = SHARED / "reviews_gpt2.csv"
OUT = Path(__file__).with_suffix(".json")
LONGEST = 512


def main() -> None:
    """Read, tokenise, count and write."""
    with open(DATA, encoding="utf-8", newline="") as file:
        texts = [typography(row["text"]) for row in csv.DictReader(file) if row["split"] == "train"]
    encoder = EncoderConfig(**load_preset("minilm-finetune")["encoder"])
    files = [(locate(encoder).folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")]
    lengths = [len(item.ids) for item in Tokenizer(*files, LONGEST).encode(texts)]
    counts = np.bincount(lengths, minlength=LONGEST + 1)
    about = {
        "about": f"counts[n] is the number of training reviews of n WordPiece tokens, special tokens included, cut at {LONGEST}",
        "made_by": "python benchmarks/review_lengths.py",
        "file": DATA.name,
        "sha256": hashlib.sha256(DATA.read_bytes()).hexdigest(),
        "tokenizer": f"{encoder.repo}@{encoder.revision}",
        "rows": len(lengths),
        "mean": round(float(np.mean(lengths)), 2),
        "median": float(np.median(lengths)),
        "counts": counts.tolist(),
    }
    # One line per key; indentation would give each count its own line.
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in about.items())
    OUT.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{OUT.name}: {about['rows']} reviews, mean {about['mean']} tokens, {counts[LONGEST]} of {LONGEST} or more")


if __name__ == "__main__":
    main()
