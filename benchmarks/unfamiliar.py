"""How many texts of other languages a model of English reviews flags as unfamiliar, and write docs/results/unfamiliar.

    python benchmarks/unfamiliar.py

Needs ../shared/data. The vocabulary is that of all-MiniLM-L6-v2; what is familiar is learned from the training rows of
reviews_gpt2.csv, as `Classifier.train` does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _results import SHARED, describe, machine, write

from reviewguard import Classifier
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.rows import iter_rows
from reviewguard.nn.encoder import load_encoder
from reviewguard.tokens import FAMILIAR, Familiar

TRAINED_ON, SCORED = "reviews_gpt2.csv", "reviews_multilingual.csv"


def rows(name: str) -> Iterator[dict[str, str]]:
    """Of a file of reviews, with the texts normalised."""
    for row in iter_rows(SHARED / name):
        yield {**row, "text": NORMALIZERS["typography"](row["text"])}


def main() -> None:
    """Learn the limit, count, write."""
    tokenizer = load_encoder(Classifier("minilm-logreg")._recipe().encoder).tokenizer
    own = list(rows(TRAINED_ON))
    limit = Familiar.of(tokenizer, [row["text"] for row in own if row["split"] == "train"]).max_fertility
    assert limit is not None
    texts: dict[str, list[str]] = {f"validation rows of {TRAINED_ON}": [row["text"] for row in own if row["split"] != "train"]}
    for row in rows(SCORED):
        texts.setdefault(row["language"], []).append(row["text"])
    shares = {
        name: (len(of), float(np.mean([item.fertility > limit for item in tokenizer.encode(of)]))) for name, of in texts.items()
    }
    lines = [f"| {name} | {count} | {100 * share:.1f} % |" for name, (count, share) in shares.items()]
    about = machine()
    markdown = "\n".join(
        [
            "# Texts in other languages",
            "",
            f"A model of English reviews, with the vocabulary of all-MiniLM-L6-v2, flags a text as unfamiliar where its words fall into more "
            f"than {limit:.2f} pieces on average, or none is known. Of the training rows of `{TRAINED_ON}` {100 * FAMILIAR:g} % do not. "
            f"The other rows are hotel reviews of `{SCORED}` (MAiDE-up), by people and by GPT-4.",
            "",
            "| texts | rows | flagged |",
            "| --- | --- | --- |",
            *lines,
            "",
            describe(about),
            "",
            "Made by `python benchmarks/unfamiliar.py`; figures in [unfamiliar.json](unfamiliar.json).",
        ]
    )
    found = {name: {"rows": count, "flagged": share} for name, (count, share) in shares.items()}
    write("unfamiliar", {"machine": about, "limit": limit, "flagged": found}, markdown)


if __name__ == "__main__":
    main()
