"""Try ways to make the model in the box, and write docs/results/default-trials.

    python benchmarks/default_trials.py [NAME ...]

Needs ../shared/data. A trial is one training of a slimmed MiniLM on pooled reviews, scored on validation rows of each generator;
one whose result is in docs/results/default-trials.json, for the same settings, is not run again. Two side by side, with
OMP_NUM_THREADS=1, take the least time.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

import msgspec
from _judge import judge, threshold
from _pool import FILES, PRODUCTS, Row, for_training, for_validation, load
from _results import RESULTS, describe, machine, save
from _trial import ALL, Trial, odds, trained
from msgspec.structs import replace

#: Of each source's people, called fakes at most.
MAX_FPR: Final = 0.02
FOUR: Final = Trial(layers=(0, 1, 2, 3), max_length=128, learning_rate=3e-4, epochs=2, soup=3, ngrams=2**17, modern=2.0)
#: What tells encoders from each other: one epoch, and nothing beside them.
SHORT: Final = replace(FOUR, epochs=1, soup=1, ngrams=0, modern=1.0)
TRIALS: Final = {
    "box": replace(FOUR, epochs=3),
    "box-of-one-run": replace(FOUR, epochs=3, soup=1),
    "box-as-it-is": replace(FOUR, epochs=3, modern=1.0),
    "encoder-alone": replace(FOUR, epochs=3, ngrams=0, modern=1.0),
    **{f"box-without-{source}": replace(FOUR, without=source) for source in ("deepseek", "glm", "lfm")},
    "short": SHORT,
    "short-all-layers": replace(SHORT, layers=ALL),
    "short-as-published": replace(SHORT, least=0),
    "short-no-subclasses": replace(SHORT, kinds=False),
}


def result(name: str, rows: list[Row]) -> dict[str, Any]:
    """What a trial came to, now or when it was run with these settings before."""
    if name in (tried := earlier()):
        return tried[name]
    found = _run(name, rows)
    tried = {**earlier(), name: found}  # another may have been written meanwhile, by a process beside this one
    tried = {name: tried[name] for name in TRIALS if name in tried}
    save("default-trials", {"trials": tried}, page(tried))
    return found


def earlier() -> dict[str, dict[str, Any]]:
    """Trials of today's settings that have been run, in today's order."""
    path = RESULTS / "default-trials.json"
    found = json.loads(path.read_text(encoding="utf-8"))["trials"] if path.exists() else {}
    there = [name for name in TRIALS if name in found]
    return {name: found[name] for name in there if msgspec.convert(found[name]["trial"], Trial) == TRIALS[name]}


def _run(name: str, rows: list[Row]) -> dict[str, Any]:
    trial = TRIALS[name]
    classifier = trained(trial, rows)
    setting, scored = for_validation(rows)
    products = [row for row in setting if row.source in PRODUCTS and row.source != trial.without]
    limit = threshold(products, odds(classifier, products), MAX_FPR)
    about = {
        "trial": msgspec.to_builtins(trial),
        "machine": machine(),
        "rows": len(for_training(rows, trial.without)),
    }
    return {**about, "sources": judge(scored, odds(classifier, scored), limit, MAX_FPR)}


def main() -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    rows = load()
    for name in parser.parse_args().names or TRIALS:
        show(name, result(name, rows))


def page(tried: dict[str, dict[str, Any]]) -> str:
    """The trials as Markdown."""
    heads = [
        "trial",
        "layers",
        "vocabulary",
        "subclasses",
        "n-grams",
        "odds of modern",
        "left out",
        "epochs",
        "runs averaged",
    ]
    lines = [f"| {' | '.join([*heads, *FILES])} |", "| --- " * (len(heads) + len(FILES)) + "|"]
    for name, found in tried.items():
        trial = msgspec.convert(found["trial"], Trial)
        cells = [
            name,
            ", ".join(map(str, trial.layers)),
            f"cased, of pieces seen {trial.least} times" if trial.least else "as published",
            "older, modern" if trial.kinds else "none",
            f"{trial.ngrams:,} buckets" if trial.ngrams else "none",
            f"times {trial.modern:g}",
            trial.without or "none",
            str(trial.epochs),
            str(trial.soup),
        ]
        cells += [summary(one) for one in found["sources"].values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "# What was tried for the model in the box",
            "",
            "all-MiniLM-L6-v2 with layers left out, fine-tuned on pooled training rows and scored on half of the validation rows of each "
            "generator's file: accuracy, recall, false positives and AUC in percent, at a threshold that the people's reviews of products in "
            f"the other half set, for {100 * MAX_FPR:g} % of them. {FOUR.max_length} tokens of a text are read. What ships is the one called box, "
            "in int8. The short ones tell encoders from each other.",
            "",
            *lines,
            "",
            " ".join(dict.fromkeys(describe(found["machine"]) for found in tried.values())),
            "",
            "Made by `python benchmarks/default_trials.py`; figures in [default-trials.json](default-trials.json).",
        ]
    )


def summary(found: dict[str, Any]) -> str:
    """Of one source, in percent."""
    accuracy, recall, wrong = (100 * found[name]["value"] for name in ("accuracy", "recall", "false_positive_rate"))
    return f"{accuracy:.1f}; recall {recall:.1f}, false positives {wrong:.1f}; AUC {100 * found['auc']:.1f}"


def show(name: str, found: dict[str, Any]) -> None:
    """A few lines."""
    print(f"{name}: {found['rows']} rows")
    for source, one in found["sources"].items():
        print("  ", source, summary(one), flush=True)


if __name__ == "__main__":
    main()
