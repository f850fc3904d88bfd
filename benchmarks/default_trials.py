"""Try ways to make the model in the box, and write docs/results/default-trials.

    python benchmarks/default_trials.py [NAME ...]

Needs ../shared/data. A trial is one training of a slimmed MiniLM on pooled reviews, scored on validation rows of each generator;
those that are in build/default/trials already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

import msgspec
import numpy as np
from _pool import FILES, MODERN, Row, for_training, for_validation, load
from _results import ROOT, describe, machine, write
from _slim import slim
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from reviewguard import Classifier
from reviewguard.nn.sources import locate

WORK: Final = ROOT / "build" / "default"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A way to train.

    Attributes:
        layers: Layers of MiniLM's six that are kept.
        least: Times that a piece of the vocabulary occurs in the training texts at least; 0: the published vocabulary, uncased.
        repeat: Times that a fake of a modern generator is seen in an epoch.
        kinds: Whether older and modern fakes are subclasses.
        rows: Training rows, drawn, besides the fakes of modern generators; 0: all.
        without: Generator whose fakes are left out.
        epochs: Of training.
        learning_rate: Its peak.
        seed: Of everything.
    """

    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    least: int = 5
    repeat: int = 1
    kinds: bool = False
    rows: int = 0
    without: str = ""
    epochs: int = 1
    learning_rate: float = 2e-4
    seed: int = 0


SMALL: Final = {"layers": (0, 2, 4), "rows": 8000, "learning_rate": 3e-4}
HELD: Final = {**SMALL, "rows": 6000, "least": 0, "without": "lfm"}
TRIALS: Final = {
    "uncased": Trial(**SMALL, least=0),
    "cased": Trial(**SMALL),
    "first-layers": Trial(**{**SMALL, "layers": (0, 1, 2)}),
    "lfm-held": Trial(**HELD),
    "lfm-held-repeat": Trial(**HELD, repeat=3),
    "lfm-held-repeat-kinds": Trial(**HELD, repeat=3, kinds=True),
}


def run(trial: Trial, rows: list[Row]) -> dict[str, Any]:
    """Train and score."""
    chosen = for_training(rows, trial.without)
    if trial.rows:
        drawn = set(np.random.default_rng(trial.seed).permutation(len(chosen))[: trial.rows].tolist())
        chosen = [row for index, row in enumerate(chosen) if is_modern(row) or index in drawn]
    chosen = [row for row in chosen for _ in range(trial.repeat if is_modern(row) else 1)]
    texts, labels = [row.text for row in chosen], [row.label for row in chosen]
    started = time.perf_counter()
    classifier = Classifier(
        "minilm-finetune",
        **encoder(trial, rows),
        loop__epochs=trial.epochs,
        loop__learning_rate=trial.learning_rate,
        seed=trial.seed,
    ).fit(texts, labels, [kind(row) for row in chosen] if trial.kinds else None)
    seconds = time.perf_counter() - started
    setting, scored = for_validation(rows)
    scores = [odds(classifier, [row.text for row in half]) for half in (setting, scored)]
    return {"trial": msgspec.to_builtins(trial), "rows": len(chosen), "seconds": seconds, **judge(setting, scored, *scores)}


def encoder(trial: Trial, rows: list[Row]) -> dict[str, str]:
    """Settings of the encoder to begin with."""
    published = Classifier("minilm-finetune")._recipe().encoder
    if not trial.least and len(trial.layers) == 6:
        return {}
    folder = WORK / f"encoder-{''.join(map(str, trial.layers))}-{trial.least}"
    if not (folder / "tokenizer.json").exists():
        slim(locate(published), folder, [row.text for row in for_training(rows)], layers=trial.layers, least=trial.least)
    return {"encoder__repo": str(folder), "encoder__revision": "", "encoder__weights_sha256": ""}


def is_modern(row: Row) -> bool:
    """Whether it is a fake of a modern generator."""
    return row.label == "fake" and row.source in MODERN


def kind(row: Row) -> str:
    """Its subclass."""
    return "" if row.label == "real" else "modern" if is_modern(row) else "older"


def odds(classifier: Classifier, texts: list[str]) -> NDArray[np.float64]:
    """Log-odds that a text is a fake."""
    fake, real = np.log(np.maximum(classifier.predict_proba(texts).astype(np.float64), 1e-30)).T
    odds: NDArray[np.float64] = fake - real
    return odds


def judge(
    setting: list[Row], scored: list[Row], set_on: NDArray[np.float64], scores: NDArray[np.float64], max_fpr: float = 0.02
) -> dict[str, Any]:
    """By source: recall, false positives and accuracy at a threshold that 2 % of one half's people exceed, on the other half."""
    threshold = np.quantile(set_on[[row.label == "real" for row in setting]], 1 - max_fpr)
    found: dict[str, Any] = {"threshold": float(threshold), "sources": {}}
    for source in FILES:
        own = np.array([row.source == source for row in scored])
        fake = np.array([row.label == "fake" for row in scored])[own]
        called = scores[own] > threshold
        found["sources"][source] = {
            "auc": float(roc_auc_score(fake, scores[own])),
            "recall": float(called[fake].mean()),
            "false_positive_rate": float(called[~fake].mean()),
            "accuracy": float((called == fake).mean()),
        }
    return found


def main() -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--table", action="store_true", help="write the table of what was tried, and try nothing")
    arguments = parser.parse_args()
    names = [] if arguments.table else arguments.names or list(TRIALS)
    rows = load()
    (WORK / "trials").mkdir(parents=True, exist_ok=True)
    for name in names:
        path = WORK / "trials" / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(run(TRIALS[name], rows), indent=1))
        show(name, json.loads(path.read_text()))
    paths = {name: WORK / "trials" / f"{name}.json" for name in TRIALS}
    tried = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    about = machine()
    write("default-trials", {"machine": about, "trials": tried}, page(tried, describe(about)))


def page(tried: dict[str, dict[str, Any]], about: str) -> str:
    """The trials as Markdown."""
    heads = ["trial", "layers", "vocabulary", "fakes of modern generators", "subclasses", "left out", "other rows", "epochs"]
    lines = [f"| {' | '.join([*heads, *FILES])} |", "| --- " * (len(heads) + len(FILES)) + "|"]
    for name, found in tried.items():
        trial = msgspec.convert(found["trial"], Trial)
        cells = [
            name,
            ", ".join(map(str, trial.layers)),
            f"cased, of pieces seen {trial.least} times" if trial.least else "as published",
            f"{trial.repeat} times an epoch",
            "older, modern" if trial.kinds else "none",
            trial.without or "none",
            str(trial.rows or "all"),
            str(trial.epochs),
        ]
        for one in found["sources"].values():
            of = {key: f"{100 * value:.1f}" for key, value in one.items()}
            cells.append(f"{of['accuracy']}; recall {of['recall']}, false positives {of['false_positive_rate']}; AUC {of['auc']}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "# What was tried for the model in the box",
            "",
            "all-MiniLM-L6-v2 with layers left out, fine-tuned on pooled training rows and scored on half of the validation rows of each "
            "generator's file, in percent, at a threshold that 2 % of the people's reviews in the other half exceed. Trials on few rows "
            "tell ways to train from each other; none of them is the model that ships.",
            "",
            *lines,
            "",
            about,
            "",
            "Made by `python benchmarks/default_trials.py`; figures in [default-trials.json](default-trials.json).",
        ]
    )


def show(name: str, found: dict[str, Any]) -> None:
    """A few lines."""
    print(f"{name}: {found['rows']} rows, {found['seconds']:.0f} s")
    for source, one in found["sources"].items():
        print("  ", source, *(f"{key} {100 * value:.2f}" for key, value in one.items()), flush=True)


if __name__ == "__main__":
    main()
