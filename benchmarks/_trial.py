"""One way to train the model in the box: a slimmed MiniLM on pooled reviews, with n-grams beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from _pool import MODERN, Row, for_training, for_validation, is_left_out
from _results import ROOT
from _slim import slim
from msgspec.structs import replace
from numpy.typing import NDArray

from reviewguard import Classifier
from reviewguard.bundle import is_bundle
from reviewguard.nn.heads import LinearHead, SubclassHead
from reviewguard.nn.model import TextModel
from reviewguard.nn.sources import locate

WORK: Final = ROOT / "build" / "default"
#: The whole of MiniLM.
ALL: Final = (0, 1, 2, 3, 4, 5)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A way to train.

    Attributes:
        layers: Layers of MiniLM's six that are kept.
        least: Times that a piece of the vocabulary occurs in the training texts at least; 0: the published vocabulary, uncased.
        kinds: Whether older and modern fakes are subclasses; the three kinds then weigh the same, however many rows they have.
        max_length: Tokens that are read of a text.
        without: Generator whose fakes are left out.
        epochs: Of training.
        soup: Runs whose weights are averaged, of the seeds from 0 on.
        learning_rate: Its peak.
        ngrams: Buckets of the bag of n-grams beside the encoder; 0: none.
        modern: How much more likely a fake of a modern generator is taken to be than among the validation rows.
    """

    layers: tuple[int, ...] = ALL
    least: int = 5
    kinds: bool = True
    max_length: int = 256
    without: str = ""
    epochs: int = 1
    soup: int = 1
    learning_rate: float = 2e-4
    ngrams: int = 0
    modern: float = 1.0


def trained(trial: Trial, rows: Sequence[Row]) -> Classifier:
    """The model that a trial gives; kept in build/default, and gone on with there if it was killed.

    Trials that differ only in their n-grams, and in how many runs they average, share their runs; those that differ only in the odds
    of modern fakes share the model, as what is kept does not expect these yet. The half of the validation rows that decisions are set
    on chooses the epoch too, and weighs the n-grams.
    """
    folder = WORK / "models" / _key(replace(trial, modern=1.0))
    if not is_bundle(folder):
        _train(trial, rows, folder)
    classifier = Classifier.from_pretrained(folder)
    _expect_modern(classifier, trial.modern)
    return classifier


def _train(trial: Trial, rows: Sequence[Row], folder: Path) -> None:
    classifier = Classifier(
        "minilm-finetune",
        **encoder(trial, rows),
        encoder__max_length=trial.max_length,
        loop__epochs=trial.epochs,
        loop__learning_rate=trial.learning_rate,
        soup=trial.soup,
        ngrams=trial.ngrams,
        data__subclass="kind" if trial.kinds else "",
        # The rows are single already, and a short review is a review.
        data__near_duplicates=0,
        data__min_tokens=0,
        data__max_tokens=10**6,
        seed=0,
    )
    setting = [row for row in for_validation(rows)[0] if not is_left_out(row, trial.without)]
    run_dir = WORK / "runs" / _key(replace(trial, soup=1, ngrams=0, modern=1.0))
    if trial.soup == 1:
        run_dir /= "seed-0"  # where a soup has its first run
    classifier.train(
        columns(for_training(rows, trial.without)), validation=columns(setting), run_dir=run_dir, resume="if-possible"
    )
    classifier.save(folder)


def _key(trial: Trial) -> str:
    """Of settings: others have another."""
    return hashlib.sha256(msgspec.json.encode(trial)).hexdigest()[:10]


def _expect_modern(classifier: Classifier, times: float) -> None:
    """Raise the odds of modern fakes: what there will be is more of them, and unseen ones resemble them, not the older ones."""
    if times == 1:
        return
    model = classifier._trained().scorer
    assert isinstance(model, TextModel)
    assert isinstance(model.head, SubclassHead)
    assert isinstance(model.head.inner, LinearHead)
    model.head.inner.bias[0] += math.log(times)  # subclasses are in the order of their names: modern, older


def encoder(trial: Trial, rows: Sequence[Row]) -> dict[str, str]:
    """Settings of the encoder to begin with."""
    published = Classifier("minilm-finetune")._recipe().encoder
    if not trial.least and trial.layers == ALL:
        return {}
    folder = WORK / f"encoder-{''.join(map(str, trial.layers))}-{trial.least}"
    if not (folder / "tokenizer.json").exists():
        slim(locate(published), folder, [row.text for row in for_training(rows)], layers=trial.layers, least=trial.least)
    return {"encoder__repo": str(folder), "encoder__revision": "", "encoder__weights_sha256": ""}


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Rows as `Classifier.train` takes them."""
    return {
        "text": [row.text for row in rows],
        "label": [row.label for row in rows],
        "kind": ["" if row.label == "real" else "modern" if is_modern(row) else "older" for row in rows],
    }


def is_modern(row: Row) -> bool:
    """Whether it is a fake of a modern generator."""
    return row.label == "fake" and row.source in MODERN


def odds(classifier: Classifier, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Log-odds that each is a fake, raw: no calibration in them."""
    logits = classifier._trained().logits([row.text for row in rows], "scoring")[0].astype(np.float64)
    fake, real = (logits[:, classifier.manifest.classes.index(name)] for name in ("fake", "real"))
    found: NDArray[np.float64] = fake - real
    return found
