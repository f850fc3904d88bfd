"""The training of the built-in model, kept once it is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from _candidates import E5, columns, settings, trainable, training_rows
from _corpus import Row, balanced, validation
from _results import ROOT
from msgspec.structs import replace

from reviewguard import Classifier
from reviewguard.bundle import is_bundle

WORK: Final = ROOT / "build" / "default"
#: What ships: the candidate of benchmarks/generalization.py that was selected, on as many rows as there are of most sources.
SHIPPED: Final = replace(E5, rows=16_000, products=14_000, normalization="unicode-english", augment=0.3)
SEED: Final = 0


def trained(rows: Sequence[Row]) -> Classifier:
    """The model in float32; trained now, or resumed, if it is not there."""
    folder = WORK / "models" / _key(rows)
    if not is_bundle(folder):
        classifier = Classifier({**settings(SHIPPED, rows), "seed": SEED})
        classifier.train(
            columns(training_rows(SHIPPED, rows, [])),
            validation=columns(balanced(trainable(validation(rows, "setting"), SHIPPED, []), 800)),
            run_dir=WORK / "runs" / folder.name,
            resume="if-possible",
        )
        classifier.save(folder)
    return Classifier.from_pretrained(folder)


def _key(rows: Sequence[Row]) -> str:
    """Of settings and rows: others have another."""
    return hashlib.sha256(msgspec.json.encode([SHIPPED, SEED, [row.text for row in rows]])).hexdigest()[:10]


def main() -> None:
    """Train."""
    from _corpus import load

    print(trained(load()))


if __name__ == "__main__":
    main()
