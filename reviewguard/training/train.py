"""The training pipeline: read, clean, split, train, report, and write the files of the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch

from reviewguard.bundle import card
from reviewguard.bundle.decision import log_odds
from reviewguard.bundle.manifest import FORMAT_VERSION, Manifest
from reviewguard.config import EncoderRecipe, Recipe
from reviewguard.data import split as splits
from reviewguard.data.labels import read_weights
from reviewguard.data.reviews import read_pair
from reviewguard.data.tables import Data
from reviewguard.data.tokens import DistributionLimits, word_counts
from reviewguard.errors import DataError
from reviewguard.evaluation import held_out
from reviewguard.evaluation.held_out import HeldOut
from reviewguard.evaluation.report import make_report
from reviewguard.inference import trained_on
from reviewguard.inference.model import TrainedModel
from reviewguard.models import tfidf
from reviewguard.models.device import peak_memory_mib
from reviewguard.models.files import model_files
from reviewguard.models.heads import SubclassHead, kind_of
from reviewguard.models.text_model import TextModel
from reviewguard.training.backends import Backend
from reviewguard.training.backends import tfidf as baseline
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.history import History
from reviewguard.training.plan import Plan, make_plan, prepare
from reviewguard.training.report import TrainingReport

#: Column in which `fit` stores subclasses.
SUBCLASS: Final = "subclass"
#: Default folder of checkpoints.
RUNS: Final = Path("reviewguard-runs")


def train(recipe: Recipe, backend: Backend, data: Data, validation: Data | None, run: Run) -> tuple[TrainedModel, TrainingReport]:
    """Clean, split, train and report; see `reviewguard.Classifier.train`."""
    plan = prepare(recipe, backend, data, validation)
    assert plan.cleaning is not None
    complete = {name: part.require_complete() for name, part in plan.parts.items()}
    if run.folder is None:
        run = replace(run, folder=RUNS / _run_name(recipe, complete["train"]))
    learned = learn(plan, run)
    held_out_parts = {name: rows for name, rows in plan.labelled.items() if name != "train"}
    logits = {name: backend.logits(learned.model, rows.texts, encoder=plan.encoder) for name, rows in held_out_parts.items()}
    encoded = {name: plan.encoder.tokenizer.encode(rows.texts) for name, rows in held_out_parts.items()}
    fitted = baseline.fit(plan.labelled["train"], len(plan.classes), baseline.Config(backend="tfidf", seed=recipe.seed))
    results = {
        name: make_report(
            name,
            complete[name][1],
            log_odds(logits[name]),
            tfidf.scores(fitted, rows.texts),
            classes=plan.classes,
            positive=plan.positive,
            truncated=sum(item.truncated for item in encoded[name]),
        )
        for name, rows in held_out_parts.items()
    }
    report = TrainingReport(
        cleaning=plan.cleaning,
        rows={name: len(part) for name, part in plan.parts.items()},
        results=results,
        seconds=learned.seconds,
        peak_memory_mib=peak_memory_mib(),
        model_mib=learned.model_mib,
        history=learned.history,
    )
    sides = [(text, name) for name, (texts, _) in complete.items() for text in texts]
    extra = {**tfidf.to_files(fitted, tfidf.BASELINE), "split.csv": splits.to_csv(sides).encode()}
    if "validation" in logits:
        words = word_counts(encoded["validation"])
        extra |= held_out.to_file(HeldOut(logits["validation"], plan.labelled["validation"].y, words))
    return _trained_model(plan, learned, report, extra), report


def fit(
    recipe: Recipe,
    backend: Backend,
    texts: list[str],
    labels: Iterable[Any],
    subclasses: list[Any] | None = None,
    sample_weight: Iterable[float] | None = None,
) -> TrainedModel:
    """Train on exactly these rows; see `reviewguard.Classifier.fit`."""
    rows = read_pair(texts, labels)
    if subclasses is not None:
        recipe = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, subclass=SUBCLASS))
        rows = replace(rows, columns={SUBCLASS: subclasses})
        if len(subclasses) != len(rows):
            raise DataError(f"subclasses and texts differ in length: {len(subclasses)} and {len(rows)}")
    if rows.stripped_labels:
        raise DataError(
            f"{rows.stripped_labels} labels have leading or trailing white space, which fit does not remove; strip them"
        )
    weight = None
    if sample_weight is not None:
        weight = read_weights(sample_weight, len(rows))
        weighted = np.flatnonzero(weight)
        if missing := set(rows.labels) - set(rows.take(weighted).labels):
            raise DataError(
                f"sample_weight is 0 in every row of the class {min(map(str, missing))!r}; give at least one of them a weight"
            )
        rows, weight = rows.take(weighted), weight[weighted]
    prepared = make_plan(recipe, backend, backend.load(recipe), {"train": rows}, weight=weight)
    return _trained_model(prepared, learn(prepared, Run()), None, {})


class Learned(NamedTuple):
    """Result of training, before it is written to files.

    Attributes:
        model: Encoder and head.
        history: History of the fine-tuning run. None: nothing was fine-tuned.
        seconds: Wall time of encoding and fitting.
    """

    model: TextModel
    history: History | None
    seconds: float

    @property
    def model_mib(self) -> float:
        """Size of the weights, encoder and head together, in MiB."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20


def learn(plan: Plan, run: Run) -> Learned:
    """Execute a plan.

    Args:
        plan: Plan of the training run.
        run: Folder of the checkpoints, and whether to resume.
    """
    started = time.perf_counter()
    model, history = plan.backend.train(
        plan.targets["train"],
        plan.targets.get("validation"),
        classes=[f"{name} ({kind})" if kind else name for name, kind in plan.subclasses],
        encoder=plan.encoder,
        config=plan.recipe,
        run=run,
    )
    if plan.recipe.data.subclass:
        assert not isinstance(model.head, SubclassHead)
        owner = torch.tensor([plan.classes.index(name) for name, _ in plan.subclasses])
        model.head = SubclassHead(model.head, owner).to(next(model.parameters()).device)
    return Learned(model, history, time.perf_counter() - started)


def _trained_model(plan: Plan, learned: Learned, report: TrainingReport | None, extra: dict[str, bytes]) -> TrainedModel:
    recipe, rows = plan.recipe, plan.parts["train"]
    # A bundle is shared: local paths are useless elsewhere and must not be published.
    recipe = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, split_file=""))
    if report is not None and report.history is not None:
        report = msgspec.structs.replace(report, history=msgspec.structs.replace(report.history, run_dir=""))
    model, loaded, classes = learned.model, plan.encoder, plan.classes
    limits = DistributionLimits.of(loaded.tokenizer, plan.labelled["train"].texts)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        reviewguard_version=version("reviewguard"),
        classes=classes,
        positive=plan.positive,
        normalization=recipe.data.normalization,
        max_length=loaded.tokenizer.max_length,
        head=kind_of(model.head),
        recipe=msgspec.to_builtins(loaded.pinned(recipe)),
        training=None if report is None else msgspec.to_builtins(report),
        max_fertility=limits.max_fertility,
        min_tokens=limits.min_tokens,
        label_type=rows.label_type,
        data_sha256=_data_sha256(rows.require_complete()),
    )
    labels = dict(enumerate(classes))
    settings = {
        **model.encoder.settings,
        "id2label": labels,
        "label2id": {name: index for index, name in labels.items()},
        "problem_type": "single_label_classification",
    }
    files: dict[str, bytes | Path] = {
        **extra,
        **trained_on.to_file(plan.labelled["train"].texts),
        **loaded.tokenizer.files(),
        "config.json": json.dumps(settings, indent=1).encode(),
        "README.md": card.render(manifest, _results(report), _metrics(report)).encode(),
        **loaded.files(),
        **model_files(model, loaded.tokenizer, manifest),
    }
    return TrainedModel(manifest, loaded.tokenizer, model.eval(), files)


def _data_sha256(rows: tuple[list[str], list[str]]) -> str:
    lines = sorted(f"{splits.row_hash(text)}\t{label}\n" for text, label in zip(*rows, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _run_name(recipe: Recipe, rows: tuple[list[str], list[str]]) -> str:
    """A name that is unique to a job; it does not depend on the number of epochs."""
    settings = msgspec.to_builtins(recipe)
    for name in ("epochs", "report_to", "save_steps", "checkpoints"):
        settings.get("loop", {}).pop(name, None)
    job = hashlib.sha256(msgspec.json.encode([settings, _data_sha256(rows)])).hexdigest()
    encoder = f"{recipe.encoder.repo.rstrip('/').rsplit('/', 1)[-1]}-" if isinstance(recipe, EncoderRecipe) else ""
    return f"{encoder}{recipe.backend}-{job[:10]}"


def _results(report: TrainingReport | None) -> str:
    return "" if report is None else "\n\n".join(result.to_markdown() for result in report.results.values())


def _metrics(report: TrainingReport | None) -> dict[str, dict[str, float]]:
    results = {} if report is None else report.results
    return {
        rows: {name: figure.value for name, figure in result.model.metrics.items() if figure.value is not None}
        for rows, result in results.items()
    }
