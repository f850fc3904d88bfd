"""Train and evaluate the built-in model, and write reviewguard/builtin and docs/results/built-in.

    python benchmarks/train_builtin.py [--page]

Needs ../shared/data and the packages that benchmarks/weights.py names. Takes about an hour on two cores; interrupted training resumes.
The scored rows are used neither for training, nor for thresholds, nor for selecting the recipe. With --page, only the card and the page
are rewritten, from docs/results/built-in.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from _builtin_page import card, draw_rates, page
from _candidates import PRODUCTS, SHIPPED, Candidate, columns, training_rows
from _corpus import BANDS, FILES, HUMAN, REVIEWS, Row, balanced, band, draw, load, validation
from _results import RESULTS, machine, write
from _shipped import trained
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from reviewguard import Classifier, Limits
from reviewguard.bundle.decision import NOT_FLAGGED, REVIEW
from reviewguard.bundle.folder import write_bundle
from reviewguard.data.tokens import word_counts
from reviewguard.inference.engines.select import GRAPHS
from reviewguard.inference.references import FILE as REFERENCES
from reviewguard.loading import BUILTIN

#: Largest share of human texts that are flagged, in each length band and each domain.
MAX_FPR: Final = 0.02
#: Share of human texts that need review.
REVIEW_RATE: Final = 0.25
#: Share of texts whose label may change in int8, since probabilities near one half change easily. Thresholds are set in int8.
LIMITS: Final = Limits(flips=0.005)
#: Files of an export that ship: one graph, and no texts.
KEPT: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "export_report.json", GRAPHS["int8"], REFERENCES)
#: Fewest held-out human texts for a separate result of a domain.
LEAST: Final = 150
PREVALENCES: Final = (0.01, 0.2)
#: Number of generated texts for setting decisions; of texts for verifying the export, whose human half become the references of
#: `adapt`; and of texts in the stress test.
FAKES, JUDGES, STRESSED = 1000, 3000, 800


def make(candidate: Candidate, rows: list[Row], folder: Path, limits: Limits = LIMITS) -> tuple[Classifier, dict[str, Any]]:
    """Train, export in int8, and set windows and decisions in int8 on rows that are not scored."""
    available = validation(rows, "setting")
    fakes = draw([row for row in available if row.label == "fake"], FAKES, lambda row: (row.generator, row.domain))
    setting = columns([*(row for row in available if row.label == "real"), *fakes])
    trained(candidate, rows).export(folder, columns(balanced(available, JUDGES)), int8=True, limits=limits)
    model = Classifier.from_pretrained(folder, runtime="onnxruntime", precision="int8")
    reading = model.set_windows(setting)
    model.calibrate(setting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page reports the uncertainty of each rate
        model.set_operating_point(setting, max_fpr=MAX_FPR, by_length=BANDS, group="domain")
    model.set_abstention(setting, review_rate=REVIEW_RATE, one_sided=True)
    return model, msgspec.to_builtins(reading)


def measure(model: Classifier, rows: list[Row], reading: dict[str, Any]) -> dict[str, Any]:
    """All results for the page and the card."""
    scored = validation(rows, "published")
    fitted, point = model._trained(), model.manifest.decision.operating_point
    assert point is not None
    logits, encoded = fitted.logits([row.text for row in scored], "scoring")
    words, positive = word_counts(encoded), fitted.positive
    assert positive is not None
    margin = model.manifest.decision.scores(logits, positive, words)[:, positive]
    decided = np.array(model.manifest.decision.decisions(logits, model.manifest.classes, positive, words))
    products = [row for row in scored if row.domain == "products" and band(row.text)]
    flagged = decided == "fake"
    human = np.array([row.label == "real" for row in scored])
    domains = np.array([row.domain for row in scored])
    generators = np.array([row.generator for row in scored])
    lengths = np.array([band(row.text) for row in scored])
    long_enough = lengths > 0
    of_products = human & (domains == "products") & long_enough
    return {
        "candidate": msgspec.to_builtins(SHIPPED),
        "rows": {label: sum(row.label == label for row in training_rows(SHIPPED, rows, [])) for label in ("real", "fake")},
        "data": FILES,
        "graph_sha256": model.manifest.files[GRAPHS["int8"]].sha256,
        "mib": sum(model.manifest.files[name].size for name in KEPT) / 2**20,
        "max_fpr": MAX_FPR,
        "reading": reading,
        "operating_point": msgspec.to_builtins(point),
        "shares": {f"precision at {100 * rate:g} %": msgspec.to_builtins(point.precision(rate)) for rate in PREVALENCES},
        "domains": by_domain(flagged[human & long_enough], domains[human & long_enough]),
        "lengths": {
            str(bound): {
                "false_positive_rate": share(flagged[human & (lengths == bound)]),
                "recall": share(flagged[~human & (lengths == bound)]),
            }
            for bound in BANDS
        },
        "generators": {
            name: known(name, margin, flagged, generators, long_enough, of_products) for name in sorted(set(generators) - {HUMAN})
        },
        "decisions": {
            name: {word: share(decided[of] == word) for word in ("fake", REVIEW, NOT_FLAGGED)}
            for name, of in (("human texts", human), ("fakes", ~human))
        },
        "stress": msgspec.to_builtins(model.stress(columns(balanced(products, STRESSED)))),
    }


def by_domain(flagged: NDArray[np.bool_], domains: NDArray[np.str_]) -> dict[str, Any]:
    """Share of flagged human texts in each domain with enough texts, in the other reviews, and in other texts."""
    enough = [name for name in sorted(set(domains)) if (domains == name).sum() >= LEAST]
    pooled, reviews = ~np.isin(domains, enough), np.isin(domains, REVIEWS)
    return {
        **{name: share(flagged[domains == name]) for name in enough},
        "other reviews together": share(flagged[pooled & reviews]),
        "texts that are no reviews": share(flagged[pooled & ~reviews]),
    }


def known(
    name: str,
    margin: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    generators: NDArray[np.str_],
    told: NDArray[np.bool_],
    human: NDArray[np.bool_],
) -> dict[str, Any]:
    """Results of a generator in the training data: recall at the threshold, and ranking against human product reviews."""
    fakes = (generators == name) & told
    both = np.concatenate([flagged[fakes], ~flagged[human]]) if name in PRODUCTS else flagged[fakes]
    limits = {rate: np.quantile(margin[human], 1 - rate) for rate in (0.01, 0.05)}
    return {
        "recall": share(flagged[fakes]),
        "accuracy": share(both) if name in PRODUCTS else None,
        **{f"recall at {100 * rate:g} %": share(margin[fakes] > limit) for rate, limit in limits.items()},
        "auc": float(
            roc_auc_score(np.repeat([1, 0], [fakes.sum(), human.sum()]), np.concatenate([margin[fakes], margin[human]]))
        ),
    }


def share(hits: NDArray[np.bool_]) -> dict[str, float]:
    """A share with its Wilson interval (1927) and the number of rows."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"value": float(hits.mean()), "low": float(interval.low), "high": float(interval.high), "rows": len(hits)}


def main() -> None:
    """Train, evaluate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only rewrite the card and the page for the present model")
    only_page = parser.parse_args().page
    with tempfile.TemporaryDirectory() as scratch:
        if only_page:
            found = json.loads((RESULTS / "built-in.json").read_text(encoding="utf-8"))
            model = Classifier.from_pretrained()
        else:
            rows = load()
            model, reading = make(SHIPPED, rows, Path(scratch) / "export")
            found = {"machine": machine(), **measure(model, rows, reading)}
        manifest = msgspec.structs.replace(model.manifest, training=None, files={})
        contents = {name: model._trained().read(name) for name in KEPT}
        write_bundle(BUILTIN, manifest, {**contents, "README.md": card(found, manifest.max_length).encode()})
    draw_rates(found)
    write("built-in", found, page(found))


if __name__ == "__main__":
    main()
