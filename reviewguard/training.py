"""The line that training data follows: read, clean, split, train, report, and the files of the trained model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from reviewguard import card, trained_on
from reviewguard.backends import Backend, Labelled
from reviewguard.bundle import FORMAT_VERSION, Manifest
from reviewguard.config import Recipe
from reviewguard.data import split as splits
from reviewguard.data.clean import CleaningReport, Step, clean
from reviewguard.data.labels import ordered, read_weights
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.perturb import augmented
from reviewguard.data.reviews import Data, Reviews, class_indices, read, read_pair
from reviewguard.data.subclasses import subclass_indices, subclasses_of
from reviewguard.decision import NOT_FLAGGED, REVIEW, log_odds
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.evaluation import held_out
from reviewguard.evaluation.baseline import Baseline
from reviewguard.evaluation.held_out import HeldOut
from reviewguard.evaluation.report import TrainingReport, make_report, peak_memory_mib
from reviewguard.fitted import Fitted
from reviewguard.nn.checkpoint import Run
from reviewguard.nn.encoder import LoadedEncoder
from reviewguard.nn.heads import SubclassHead, kind_of
from reviewguard.nn.history import History
from reviewguard.nn.model import TextModel, model_files
from reviewguard.nn.sources import encoder_files
from reviewguard.tokens import Familiar, word_counts

#: Names, folded, that make a class the positive one where the user names none.
POSITIVE_NAMES: Final = ("fake", "spam", "deceptive", "generated", "machine", "cg", "ai", "1", "true", "yes", "positive")
#: Column that `fit` puts subclasses in.
SUBCLASS: Final = "subclass"
#: Where runs keep their checkpoints unless told otherwise.
RUNS: Final = Path("reviewguard-runs")


def train(recipe: Recipe, backend: Backend, data: Data, validation: Data | None, run: Run) -> tuple[Fitted, TrainingReport]:
    """Clean, split, train and report; see `reviewguard.Classifier.train`."""
    reviews = read(data, text=recipe.data.text, label=recipe.data.label, settings=recipe.data)
    loaded = backend.load(recipe)
    parts, cleaning = parts_of(reviews, validation, recipe, loaded)
    complete = {name: part.require_complete() for name, part in parts.items()}
    if run.folder is None:
        run = replace(run, folder=RUNS / _run_name(recipe, complete["train"]))
    learned = learn(recipe, backend, loaded, parts, run)
    classes, positive, labelled, model = learned.classes, learned.positive, learned.labelled, learned.model

    logits = {name: backend.logits(model, part.texts, encoder=loaded) for name, part in labelled.items() if name != "train"}
    baseline = Baseline.fit(labelled["train"].texts, labelled["train"].y, classes=len(classes), seed=recipe.seed)
    results = {
        name: make_report(
            name,
            complete[name][1],
            log_odds(logits[name]),
            baseline.scores(labelled[name].texts),
            classes=classes,
            positive=positive,
            truncated=sum(item.truncated for item in loaded.tokenizer.encode(labelled[name].texts)),
        )
        for name in logits
    }
    report = TrainingReport(
        cleaning=cleaning,
        rows={name: len(part) for name, part in parts.items()},
        results=results,
        seconds=learned.seconds,
        peak_memory_mib=peak_memory_mib(),
        model_mib=learned.model_mib,
        history=learned.history,
    )
    sides = [(text, name) for name, (texts, _) in complete.items() for text in texts]
    extra = {**baseline.to_files(), "split.csv": splits.to_csv(sides).encode()}
    if "validation" in logits:
        words = word_counts(loaded.tokenizer.encode(labelled["validation"].texts))
        extra |= held_out.to_file(HeldOut(logits["validation"], labelled["validation"].y, words))
    return _fitted(learned, recipe, parts["train"], report, extra), report


def fit(
    recipe: Recipe,
    backend: Backend,
    texts: list[str],
    labels: Iterable[Any],
    subclasses: list[Any] | None = None,
    sample_weight: Iterable[float] | None = None,
) -> Fitted:
    """Train on exactly these rows; see `reviewguard.Classifier.fit`."""
    rows = read_pair(texts, labels)
    if subclasses is not None:
        recipe = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, subclass=SUBCLASS))
        rows = replace(rows, columns={SUBCLASS: subclasses})
        if len(subclasses) != len(rows):
            raise DataError(f"subclasses and texts differ in length: {len(subclasses)} and {len(rows)}")
    if rows.stripped_labels:
        raise DataError(f"{rows.stripped_labels} labels have white space at their ends; fit takes labels as they are: strip them")
    weight = None
    if sample_weight is not None:
        weight = read_weights(sample_weight, len(rows))
        counted = np.flatnonzero(weight)
        if lost := set(rows.labels) - set(rows.take(counted).labels):
            raise DataError(f"sample_weight is 0 in every row of the class {min(map(str, lost))!r}; give one of them a weight")
        rows, weight = rows.take(counted), weight[counted]
    learned = learn(recipe, backend, backend.load(recipe), {"train": rows}, Run(), weight)
    return _fitted(learned, recipe, rows, None, {})


class Learned(NamedTuple):
    """What training gives, before it becomes files.

    Attributes:
        model: Encoder and head.
        encoder: What the model was made from, with its tokenizer.
        classes: In the order of the logits.
        positive: The class that binary metrics are about; None with more than two.
        labelled: The parts as the model sees them.
        history: Of a fine-tuning run.
        seconds: Wall time of encoding and fitting.
    """

    model: TextModel
    encoder: LoadedEncoder
    classes: list[str]
    positive: str | None
    labelled: dict[str, Labelled]
    history: History | None
    seconds: float

    @property
    def model_mib(self) -> float:
        """Size of the weights, encoder and head together."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20


def learn(
    recipe: Recipe,
    backend: Backend,
    encoder: LoadedEncoder,
    parts: Mapping[str, Reviews],
    run: Run,
    weight: NDArray[np.float64] | None = None,
) -> Learned:
    """Train on the part "train", exactly as it is; "validation", if it is there, chooses when to stop.

    Args:
        recipe: Of this backend.
        backend: What trains.
        encoder: What `backend.load` gave.
        parts: By name; others than these two are only made ready for the model.
        run: Where checkpoints go.
        weight: Of the rows of "train", float64 (n,), positive; None: all are 1.

    Raises:
        DataError: If a row lacks text or label, there is only one class, or a part has a label that the training rows lack.
    """
    classes, positive = classes_of(parts["train"], recipe.data.positive)
    normalize = NORMALIZERS[recipe.data.normalization]
    labelled = {}
    for name, part in parts.items():
        texts, labels = part.require_complete(classes)
        own = weight if name == "train" else None
        labelled[name] = Labelled([normalize(text) for text in texts], class_indices(labels, classes), own)
    started = time.perf_counter()
    seen, subclasses = dict(labelled), [(name, "") for name in classes]
    if recipe.data.augment:
        texts, data = parts["train"].require_complete()[0], recipe.data
        changed = [normalize(augmented(text, data.augment, data.augmentations, recipe.seed)) for text in texts]
        seen["train"] = labelled["train"]._replace(texts=changed)
    if column := recipe.data.subclass:
        subclasses = subclasses_of(parts["train"], column)
        told = {name: parts[name] for name in ("train", "validation") if name in parts}
        seen = {name: seen[name]._replace(y=subclass_indices(part, column, subclasses)) for name, part in told.items()}
    model, history = backend.train(
        seen["train"],
        seen.get("validation"),
        classes=[f"{name} ({kind})" if kind else name for name, kind in subclasses],
        encoder=encoder,
        config=recipe,
        run=run,
    )
    if column:
        assert not isinstance(model.head, SubclassHead)
        owner = torch.tensor([classes.index(name) for name, _ in subclasses])
        model.head = SubclassHead(model.head, owner).to(next(model.parameters()).device)
    return Learned(model, encoder, classes, positive, labelled, history, time.perf_counter() - started)


def parts_of(
    reviews: Reviews, validation: Data | None, recipe: Recipe, loaded: LoadedEncoder
) -> tuple[dict[str, Reviews], CleaningReport]:
    """Rows for train, validation and test, training rows cleaned; a part without rows is left out."""
    data = recipe.data
    assigned = bool(data.split) and data.split in reviews.columns
    if validation is not None:
        if assigned or data.split_file:
            other = f"the column {data.split!r} of {reviews.source}" if assigned else f"the split file {data.split_file}"
            raise DataError(
                f"{other} assigns rows to splits, and validation data was passed too; leave one out: set "
                f"data.{'split' if assigned else 'split_file'}= (empty) to train on every row"
            )
        held_out = read(validation, text=data.text, label=data.label, settings=data).labelled_as(reviews.label_type)
        train_rows, cleaning = clean(reviews, data, loaded.tokenizer.count)
        return {"train": train_rows, "validation": held_out}, cleaning
    if not assigned and not data.split_file:
        kept, cleaning = clean(reviews, data, loaded.tokenizer.count)
        return splits.divide(kept, splits.make_split(kept, data, recipe.seed)), cleaning

    sides: Sequence[splits.SplitName | None]
    if data.split_file:
        sides = splits.from_csv(data.split_file, [text or "" for text in reviews.texts])
    else:
        sides = splits.column_split(reviews.columns[data.split], data.split)
    parts = splits.divide(reviews, sides)
    if "train" not in parts:
        raise DataError(f"no row of {reviews.source} is assigned to train")
    parts["train"], cleaning = clean(parts["train"], data, loaded.tokenizer.count)
    if unknown := sum(side is None for side in sides):
        steps = [Step("not in the split file", unknown), *cleaning.steps]
        cleaning = msgspec.structs.replace(cleaning, rows_in=cleaning.rows_in + unknown, steps=steps)
    return parts, cleaning


def classes_of(rows: Reviews, wanted: str = "") -> tuple[list[str], str | None]:
    """The classes, in the order of their values, and the positive one of two.

    Args:
        rows: For training; all are labelled.
        wanted: The positive one, of two; empty: the one named like a fake, else the last.

    Raises:
        ConfigError: If the wanted one is none of them, or there are more than two.
        DataError: If there is one class only, or one has the name of a decision.
    """
    classes = ordered(rows.require_complete()[1], rows.label_type)
    if taken := {REVIEW, NOT_FLAGGED} & set(classes):
        raise DataError(f"a class is called {min(taken)!r}, which is the name of a decision on texts; rename the label")
    if len(classes) < 2:
        raise DataError(f"the training rows carry one label only, {classes[0]!r}; a classifier needs at least two")
    if wanted and wanted not in classes:
        raise ConfigError(f"data.positive is {wanted!r}, which is no class; {nearest(wanted, classes)}")
    if len(classes) > 2:
        if wanted:
            raise ConfigError(f"data.positive is {wanted!r}, but there are {len(classes)} classes; metrics are macro averages")
        return classes, None
    named = [name for usual in POSITIVE_NAMES for name in classes if name.casefold() == usual]
    return classes, wanted or (named[0] if named else classes[-1])


def _fitted(
    learned: Learned,
    recipe: Recipe,
    rows: Reviews,
    report: TrainingReport | None,
    extra: dict[str, bytes],
) -> Fitted:
    # A bundle goes to other machines: paths of this one mean nothing there, and are nobody's business.
    recipe = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, split_file=""))
    if report is not None and report.history is not None:
        report = msgspec.structs.replace(report, history=msgspec.structs.replace(report.history, run_dir=""))
    model, loaded, classes = learned.model, learned.encoder, learned.classes
    local = Path(loaded.config.repo).is_dir()
    encoder = msgspec.structs.replace(loaded.config, repo="encoder") if local else loaded.config
    familiar = Familiar.of(loaded.tokenizer, learned.labelled["train"].texts)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        reviewguard_version=version("reviewguard"),
        classes=classes,
        positive=learned.positive,
        normalization=recipe.data.normalization,
        max_length=loaded.config.max_length,
        head=kind_of(model.head),
        recipe=msgspec.to_builtins(msgspec.structs.replace(recipe, encoder=encoder)),
        training=None if report is None else msgspec.to_builtins(report),
        max_fertility=familiar.max_fertility,
        min_tokens=familiar.min_tokens,
        label_type=rows.label_type,
        data_sha256=_data_sha256(rows.require_complete()),
    )
    labels = dict(enumerate(classes))
    settings = {
        **{name: value for name, value in model.encoder.config.to_dict().items() if name != "_name_or_path"},
        "id2label": labels,
        "label2id": {name: index for index, name in labels.items()},
        "problem_type": "single_label_classification",
    }
    files: dict[str, bytes | Path] = {
        **extra,
        **trained_on.to_file(learned.labelled["train"].texts),
        **loaded.tokenizer.files(),
        "config.json": json.dumps(settings, indent=1).encode(),
        "README.md": card.render(manifest, _results(report), _metrics(report)).encode(),
    }
    if local and not model.encoder.tuned:
        files |= {f"encoder/{name}": path for name, path in encoder_files(loaded.folder, loaded.config.dense).items()}
    files |= model_files(model, loaded.tokenizer, manifest)
    return Fitted(manifest, loaded.tokenizer, model.eval(), files)


def _data_sha256(rows: tuple[list[str], list[str]]) -> str:
    lines = sorted(f"{splits.row_hash(text)}\t{label}\n" for text, label in zip(*rows, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _run_name(recipe: Recipe, rows: tuple[list[str], list[str]]) -> str:
    """A name that the same job finds again, with more epochs too, and no other job does."""
    settings = msgspec.to_builtins(recipe)
    for name in ("epochs", "report_to", "save_steps", "checkpoints"):
        settings.get("loop", {}).pop(name, None)
    job = hashlib.sha256(msgspec.json.encode([settings, _data_sha256(rows)])).hexdigest()
    return f"{recipe.encoder.repo.rstrip('/').rsplit('/', 1)[-1]}-{recipe.backend}-{job[:10]}"


def _results(report: TrainingReport | None) -> str:
    return "" if report is None else "\n\n".join(result.to_markdown() for result in report.results.values())


def _metrics(report: TrainingReport | None) -> dict[str, dict[str, float]]:
    results = {} if report is None else report.results
    return {
        rows: {name: figure.value for name, figure in of.model.metrics.items() if figure.value is not None}
        for rows, of in results.items()
    }
