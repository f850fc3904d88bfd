"""Everything that is settled before training begins: rows, classes, subclasses and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.decision import NOT_FLAGGED, REVIEW
from reviewguard.config import LoopConfig, Recipe
from reviewguard.data import split as splits
from reviewguard.data.assigned import SplitName, column_split
from reviewguard.data.clean import CleaningReport, Step, clean
from reviewguard.data.labels import ordered
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.perturb import augmented
from reviewguard.data.reviews import Data, Reviews, class_indices, read
from reviewguard.data.subclasses import Subclass, subclass_indices, subclasses_of
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.training.backends import Backend, Labelled
from reviewguard.training.finetuning.batches import micro_batch

#: Names, case-folded, that make a class the positive one where the user names none.
POSITIVE_NAMES: Final = ("fake", "spam", "deceptive", "generated", "machine", "cg", "ai", "1", "true", "yes", "positive")


class Batches(NamedTuple):
    """How each optimizer step of fine-tuning is divided.

    Attributes:
        rows: Rows that one device computes at once.
        processes: Number of processes.
        accumulation: Micro-batches whose gradients are accumulated.
        steps_per_epoch: Optimizer steps in one pass over the training rows.
    """

    rows: int
    processes: int
    accumulation: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Plan:
    """What a training run will do; `reviewguard.training.train` executes it and a dry run describes it.

    Attributes:
        recipe: Settings.
        backend: The backend that trains.
        encoder: The loaded encoder, with its tokenizer.
        parts: Rows as read, by the name of the part; "train" is cleaned.
        cleaning: Rows dropped by cleaning; None where nothing was cleaned.
        classes: Labels, in the order of the logits.
        positive: The class that binary metrics describe; None with more than two classes.
        labelled: The parts as the model sees them: normalised texts and class indices.
        subclasses: Labels with the value of `data.subclass`, in the order of the logits that the backend trains; without that
            setting, the classes.
        targets: Rows that the backend trains and stops on: "train" augmented, and both with subclass indices where there are
            subclasses.
    """

    recipe: Recipe
    backend: Backend
    encoder: LoadedEncoder
    parts: dict[str, Reviews]
    cleaning: CleaningReport | None
    classes: list[str]
    positive: str | None
    labelled: dict[str, Labelled]
    subclasses: list[Subclass]
    targets: dict[str, Labelled]

    def batches(self, processes: int) -> Batches | None:
        """Batches of fine-tuning in this number of processes; None for a backend that does not fine-tune.

        Raises:
            ConfigError: If the rows of a step cannot be divided evenly.
        """
        loop = loop_of(self.recipe)
        if loop is None:
            return None
        rows = micro_batch(loop, processes)
        steps = -(-len(self.labelled["train"].y) // loop.batch_size)
        return Batches(rows, processes, loop.batch_size // (rows * processes), steps)


def loop_of(recipe: Recipe) -> LoopConfig | None:
    """Settings of the training loop; None for a backend that does not fine-tune."""
    loop = getattr(recipe, "loop", None)
    return loop if isinstance(loop, LoopConfig) else None


def prepare(recipe: Recipe, backend: Backend, data: Data, validation: Data | None) -> Plan:
    """Read, clean and split data, and plan the training.

    Args:
        recipe: Settings of the backend.
        backend: The backend that will train.
        data: As for `reviewguard.Classifier.train`.
        validation: Likewise.

    Raises:
        DataError: If the data cannot be used.
        EncoderError: If the encoder cannot be loaded.
    """
    reviews = read(data, text=recipe.data.text, label=recipe.data.label, settings=recipe.data)
    encoder = backend.load(recipe)
    parts, cleaning = parts_of(reviews, validation, recipe, encoder)
    return make_plan(recipe, backend, encoder, parts, cleaning)


def make_plan(
    recipe: Recipe,
    backend: Backend,
    encoder: LoadedEncoder,
    parts: Mapping[str, Reviews],
    cleaning: CleaningReport | None = None,
    weight: NDArray[np.float64] | None = None,
) -> Plan:
    """Plan training on the part "train", exactly as it is.

    Args:
        recipe: Settings of the backend.
        backend: The backend that will train.
        encoder: What `backend.load` returned.
        parts: Rows by name. "validation", if present, decides when to stop; parts with other names are only prepared for scoring.
        cleaning: For the report.
        weight: Weights of the rows of "train", float64 (n,), positive; None: all are 1.

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
    targets = {name: rows for name, rows in labelled.items() if name in ("train", "validation")}
    if recipe.data.augment:
        texts, data = parts["train"].require_complete()[0], recipe.data
        changed = [normalize(augmented(text, data.augment, data.augmentations, recipe.seed)) for text in texts]
        targets["train"] = targets["train"]._replace(texts=changed)
    subclasses = [(name, "") for name in classes]
    if column := recipe.data.subclass:
        subclasses = subclasses_of(parts["train"], column)
        targets = {name: rows._replace(y=subclass_indices(parts[name], column, subclasses)) for name, rows in targets.items()}
    return Plan(recipe, backend, encoder, dict(parts), cleaning, classes, positive, labelled, subclasses, targets)


def parts_of(
    reviews: Reviews, validation: Data | None, recipe: Recipe, encoder: LoadedEncoder
) -> tuple[dict[str, Reviews], CleaningReport]:
    """Rows for train, validation and test, with the training rows cleaned; a part without rows is left out."""
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
        train_rows, cleaning = clean(reviews, data, encoder.tokenizer.count)
        return {"train": train_rows, "validation": held_out}, cleaning
    if not assigned and not data.split_file:
        cleaned, cleaning = clean(reviews, data, encoder.tokenizer.count)
        return splits.divide(cleaned, splits.make_split(cleaned, data, recipe.seed)), cleaning

    sides: Sequence[SplitName | None]
    if data.split_file:
        sides = splits.from_csv(data.split_file, [text or "" for text in reviews.texts])
    else:
        sides = column_split(reviews.columns[data.split], data.split)
    parts = splits.divide(reviews, sides)
    if "train" not in parts:
        raise DataError(f"no row of {reviews.source} is assigned to train")
    parts["train"], cleaning = clean(parts["train"], data, encoder.tokenizer.count)
    if unknown := sum(side is None for side in sides):
        steps = [Step("not in the split file", unknown), *cleaning.steps]
        cleaning = msgspec.structs.replace(cleaning, rows_in=cleaning.rows_in + unknown, steps=steps)
    return parts, cleaning


def classes_of(rows: Reviews, wanted: str = "") -> tuple[list[str], str | None]:
    """The classes, in the order of their values, and the positive one of two.

    Args:
        rows: Training rows, all of them labelled.
        wanted: The positive class, of two; empty: the one with a name of `POSITIVE_NAMES`, else the last.

    Raises:
        ConfigError: If the wanted class does not exist, or there are more than two classes.
        DataError: If there is only one class, or a class has the name of a decision.
    """
    classes = ordered(rows.require_complete()[1], rows.label_type)
    if taken := {REVIEW, NOT_FLAGGED} & set(classes):
        raise DataError(f"a class is called {min(taken)!r}, which is the name of a decision; rename the label")
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
