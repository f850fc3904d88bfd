"""Count texts of other languages that the built-in model flags as out-of-distribution; write docs/results/out-of-distribution.

    python benchmarks/out_of_distribution.py

Needs ../shared/data. The limits of the model come from its training rows, as `Classifier.train` sets them.
"""

from __future__ import annotations

import numpy as np
from _corpus import load, validation
from _results import SHARED, describe, machine, write

from reviewguard import Classifier
from reviewguard.data.rows import iter_rows
from reviewguard.data.tokens import COVERED

SCORED = "reviews_multilingual.csv"


def main() -> None:
    """Count and write."""
    model = Classifier.from_pretrained()
    limit = model.manifest.max_fertility
    assert limit is not None
    texts = {"English reviews, validation rows": [row.text for row in validation(load(), "published")]}
    for row in iter_rows(SHARED / SCORED):
        if row["language"] != "English":
            texts.setdefault(row["language"], []).append(row["text"])
    shares = {
        name: (len(of), float(np.mean([one.out_of_distribution for one in model.stream(of)]))) for name, of in texts.items()
    }
    lines = [f"| {name} | {count} | {100 * share:.1f} % |" for name, (count, share) in shares.items()]
    about = machine()
    markdown = "\n".join(
        [
            "# Texts in other languages",
            "",
            f"The built-in model flags a text as out-of-distribution if its words are split into more than {limit:.2f} tokens on average, none is "
            f"known, or it has fewer than {model.manifest.min_tokens} tokens; {100 * COVERED:g} % of its training rows are within each limit. The English "
            f"reviews come from all its sources; the others are the hotel reviews of `{SCORED}` (MAiDE-up), by people and by GPT-4.",
            "",
            "| texts | rows | flagged |",
            "| --- | --- | --- |",
            *lines,
            "",
            describe(about),
            "",
            "Made by `python benchmarks/out_of_distribution.py`; data in [out-of-distribution.json](out-of-distribution.json).",
        ]
    )
    flagged = {name: {"rows": count, "flagged": share} for name, (count, share) in shares.items()}
    write("out-of-distribution", {"machine": about, "limit": limit, "flagged": flagged}, markdown)


if __name__ == "__main__":
    main()
