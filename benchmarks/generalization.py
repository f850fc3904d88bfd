"""Score candidate recipes for the built-in model on left-out generators and domains, and write docs/results/generalization.

    python benchmarks/generalization.py [--full] [--jobs N] [NAME ...]

Needs ../shared/data and the packages that benchmarks/weights.py names. A candidate is trained several times, each time without some
cells, and scored on them. Screening trains twice, each time without three cells; --full trains once for each of eleven cells and three
seeds. Finished runs stay in docs/results/generalization.json and are reused for the same settings and rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from _candidates import CANDIDATES, CELLS, SCREENING, Cell, columns, settings, trainable, training_rows
from _corpus import Row, balanced, load, validation
from _generalization_page import MAX_FPR, REVIEWED, page
from _results import RESULTS, ROOT, machine, save
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from reviewguard.data.reviews import read
from reviewguard.experiments.jobs import Job, Result, Task
from reviewguard.experiments.results import logits_of
from reviewguard.experiments.rows import digest
from reviewguard.experiments.runs import run_all

WORK: Final = ROOT / "build" / "generalization"
#: Parts of the scored rows: for selecting a recipe, and for the published results.
PARTS: Final = ("selection", "published")
#: False positive rates at which recall is measured; 1 % and 5 % are those of RAID (Dugan et al. 2024, arXiv:2405.07940).
RATES: Final = (0.01, MAX_FPR, 0.05)


def task(name: str, fold: str, seed: int, rows: Sequence[Row]) -> Task:
    """The task of training a candidate without a fold and scoring it on the fold.

    Args:
        name: Name of the candidate.
        fold: A key of `SCREENING` or of `CELLS`.
        seed: Seed of training.
        rows: All rows.
    """
    candidate, cells = CANDIDATES[name], cells_of(fold)
    setting = balanced(trainable(validation(rows, "setting"), candidate, list(cells.values())), 600)
    scored = [row for cell in cells.values() for part in PARTS for row in cell.scored(rows, part)]
    return Task(
        job=Job(name=name, trained_on=f"without {fold}", recipe={**settings(candidate, rows), "seed": seed}, max_fpr=MAX_FPR),
        train=read(columns(training_rows(candidate, rows, list(cells.values())))),
        validation=read(columns(setting)),
        # Each row once, including the human texts that set the threshold.
        scored={"all": read(columns(list(dict.fromkeys([*scored, *(row for row in setting if row.label == "real")]))))},
    )


def cells_of(fold: str) -> dict[str, Cell]:
    """The cells of a fold, by name."""
    return {cell: CELLS[cell] for cell in SCREENING.get(fold, (fold,))}


def judge(result: Result, of: Task, rows: Sequence[Row], fold: str) -> dict[str, dict[str, Any]]:
    """Measures of the scored rows, by part and cell."""
    logits = logits_of(result, WORK)["all"].astype(np.float64)
    odds = logits[:, result.classes.index("fake")] - logits[:, result.classes.index("real")]
    by_text = dict(zip(of.scored["all"].texts, odds, strict=True))
    pairs = zip(of.validation.texts, of.validation.labels, strict=True)
    threshold = float(np.quantile([by_text[text] for text, label in pairs if label == "real"], 1 - MAX_FPR))
    results: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for part in PARTS:
        for name, cell in cells_of(fold).items():
            scored = cell.scored(rows, part)
            fake = np.array([row.label == "fake" for row in scored])
            results[part][name] = measures(np.array([by_text[row.text] for row in scored]), fake, threshold)
    return results


def measures(odds: NDArray[np.float64], fake: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """AUC, recall at several false positive rates on these human texts, and the share of fakes that would not need review.

    Args:
        odds: Log-odds that each text is fake, (n,).
        fake: Whether each text is fake, bool (n,).
        threshold: Threshold set on human texts of all training domains.
    """
    human, fakes = odds[~fake], odds[fake]
    return {
        "fakes": int(fake.sum()),
        "humans": int((~fake).sum()),
        "auc": float(roc_auc_score(fake, odds)),
        **{f"recall at {100 * rate:g} %": float((fakes > np.quantile(human, 1 - rate)).mean()) for rate in RATES},
        "recall at the threshold": float((fakes > threshold).mean()),
        "false positive rate at the threshold": float((human > threshold).mean()),
        "not flagged": float((fakes < np.quantile(human, 1 - REVIEWED - MAX_FPR)).mean()),
    }


def run(wanted: Sequence[tuple[str, str, int]], rows: Sequence[Row], jobs: int) -> dict[str, Any]:
    """Run what is not cached; returns all results by key."""
    kept = earlier()
    for start in range(0, len(wanted), jobs):
        # In small batches, so that finished runs are saved.
        tasks = {}
        for name, fold, seed in wanted[start : start + jobs]:
            one = task(name, fold, seed, rows)
            key = f"{name} / {fold} / {seed}"
            about = {
                "candidate": msgspec.to_builtins(CANDIDATES[name]),
                "rows": digest({"train": one.train, "validation": one.validation, **one.scored}),
            }
            if {field: kept.get(key, {}).get(field) for field in about} != about:
                tasks[key] = (about, one)
        for (key, (about, one)), result in zip(
            tasks.items(), run_all([one for _, one in tasks.values()], WORK, jobs), strict=True
        ):
            if result.outcome != "done":
                raise SystemExit(f"{key}: {result.error}")
            assert result.cost is not None
            kept[key] = {
                **about,
                "trained": result.rows,
                "seconds": result.cost.seconds,
                "machine": machine(),
                **judge(result, one, rows, key.split(" / ")[1]),
            }
            show(key, kept[key])
        kept = {**earlier(), **kept}
        save("generalization", {"runs": kept}, page(kept))
    return kept


def earlier() -> dict[str, Any]:
    """Cached runs."""
    path = RESULTS / "generalization.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}


def show(key: str, one: dict[str, Any]) -> None:
    """Print a short summary of a run."""
    print(f"{key}: {one['trained']} rows, {one['seconds']:.0f} s")
    for cell, measured in one["selection"].items():
        print("  ", cell, {name: round(100 * value, 1) if value <= 1 else value for name, value in measured.items()}, flush=True)


def main() -> None:
    """Run the requested candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="candidates; default: all")
    parser.add_argument("--full", action="store_true", help="leave out each of the eleven cells separately, with three seeds")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs")
    args = parser.parse_args()
    folds, seeds = (CELLS, (0, 1, 2)) if args.full else (SCREENING, (0,))
    wanted = [(name, fold, seed) for name in args.names or CANDIDATES for seed in seeds for fold in folds]
    run(wanted, load(), args.jobs)


if __name__ == "__main__":
    main()
