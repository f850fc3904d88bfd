"""Cached training runs of the built-in model and of variants with left-out cells."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from _candidates import SHIPPED, Candidate, columns, settings, trainable, training_rows
from _corpus import Row, balanced, validation
from _results import ROOT

from reviewguard import Classifier
from reviewguard.bundle.folder import is_bundle

WORK: Final = ROOT / "build" / "default"
SEED: Final = 0


def trained(candidate: Candidate, rows: Sequence[Row]) -> Classifier:
    """The model in float32; trained or resumed if it is not cached.

    Args:
        candidate: The recipe.
        rows: All training and validation rows.
    """
    key = hashlib.sha256(msgspec.json.encode([candidate, SEED, [row.text for row in rows]])).hexdigest()[:10]
    recipe = settings(candidate, rows)
    for turn in range(candidate.passes):
        folder = WORK / "models" / f"{key}-{turn}"
        if not is_bundle(folder):
            classifier = Classifier({**recipe, "seed": SEED + turn})
            classifier.train(
                columns(training_rows(candidate, rows, [])),
                validation=columns(balanced(trainable(validation(rows, "setting"), candidate, []), 800)),
                run_dir=WORK / "runs" / folder.name,
                resume="if-possible",
            )
            classifier.save(folder)
        recipe["encoder"]["repo"] = str(folder / "encoder")
    return Classifier.from_pretrained(folder)


def main() -> None:
    """Train the built-in model."""
    from _corpus import load

    print(trained(SHIPPED, load()))


if __name__ == "__main__":
    main()
