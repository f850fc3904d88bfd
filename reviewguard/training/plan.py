"""The training plan: rows, classes and subclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.decision import NOT_FLAGGED, REVIEW
from reviewguard.config import Recipe
from reviewguard.data import split as splits
from reviewguard.data.assigned import SplitName, column_split
from reviewguard.data.clean import CleaningReport, Step, clean
from reviewguard.data.labels import ordered
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.perturb import augmented
from reviewguard.data.reviews import Reviews, class_indices, read
from reviewguard.data.subclasses import Subclass, subclass_indices, subclasses_of
from reviewguard.data.tables import Data
from reviewguard.errors import ConfigError, DataError, nearest
from reviewguard.training.backends import Backend, Labelled, Loaded

#: Case-folded names of classes that are positive by default.
POSITIVE_NAMES: Final = ("fake", "spam", "deceptive", "generated", "machine", "cg", "ai", "1", "true", "yes", "positive")


@dataclass(frozen=True)
class Plan:
    """The plan of a training run. `reviewguard.training.train` executes it, and a dry run describes it.

    Attributes:
        recipe: Settings of the training run.
        backend: The backend that trains.
        encoder: What the backend loaded: the tokenizer, and the encoder if it is not fitted.
        parts: Rows as read, by the name of the split; "train" is cleaned.
        cleaning: Rows dropped by cleaning. None: nothing was cleaned.
        classes: Labels, in the order of the logits.
        positive: The class that binary metrics describe. None: there are more than two classes.
        labelled: The splits as model inputs: normalised texts and class indices.
        subclasses: Pairs of label and value of `data.subclass`, in the order of the logits that the backend trains; without that
            setting, the classes.
        targets: The splits that the backend receives: "train", augmented, and "validation". Both have subclass indices if there
            are subclasses.
    """

    recipe: Recipe
    backend: Backend
    encoder: Loaded
    parts: dict[str, Reviews]
    cleaning: CleaningReport | None
    classes: list[str]
    positive: str | None
    labelled: dict[str, Labelled]
    subclasses: list[Subclass]
    targets: dict[str, Labelled]


def prepare(recipe: Recipe, backend: Backend, data: Data, validation: Data | None) -> Plan:
    """Read, clean and split data, and plan the training.

    Args:
        recipe: Settings of the backend.
        backend: The backend that will train.
        data: Labelled data, as for `reviewguard.Classifier.train`.
        validation: Validation data, as for `reviewguard.Classifier.train`.

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
    encoder: Loaded,
    parts: Mapping[str, Reviews],
    cleaning: CleaningReport | None = None,
    weight: NDArray[np.float64] | None = None,
) -> Plan:
    """Plan training on the split "train", without cleaning it.

    Args:
        recipe: Settings of the backend.
        backend: The backend that will train.
        encoder: The result of `backend.load`.
        parts: Rows by split. "validation", if present, is used for early stopping; other splits are only prepared for scoring.
        cleaning: Cleaning report, for the training report.
        weight: Positive weights of the training rows, float64 (n,). None: all weights are 1.

    Raises:
        DataError: If a row has no text or label, there is only one class, or a split has a label that "train" does not have.
    """
    classes, positive = classes_of(parts["train"], recipe.data.positive)
    normalize = NORMALIZERS[recipe.data.normalization]
    labelled = {}
    for name, part in parts.items():
        texts, labels = part.require_complete(classes)
        row_weight = weight if name == "train" else None
        labelled[name] = Labelled([normalize(text) for text in texts], class_indices(labels, classes), row_weight)
    targets = {name: rows for name, rows in labelled.items() if name in ("train", "validation")}
    if recipe.data.augment:
        texts, data = parts["train"].require_complete()[0], recipe.data
        changed = [normalize(augmented(text, data.augment, data.augmentations, recipe.seed)) for text in texts]
        targets["train"] = targets["train"]._replace(texts=changed)
    subclasses = [(name, "") for name in classes]
    if column := recipe.data.subclass:
        subclasses = subclasses_of(parts["train"], column)
        targets = {name: rows._replace(y=subclass_indices(parts[name], column, subclasses)) for name, rows in targets.items()}
    encoder = encoder.prepared(targets["train"].texts)
    return Plan(recipe, backend, encoder, dict(parts), cleaning, classes, positive, labelled, subclasses, targets)


def parts_of(
    reviews: Reviews, validation: Data | None, recipe: Recipe, encoder: Loaded
) -> tuple[dict[str, Reviews], CleaningReport]:
    """Divide rows into train, validation and test, and clean the training rows. Splits without rows are omitted."""
    data = recipe.data
    assigned = bool(data.split) and data.split in reviews.columns
    if validation is not None:
        if assigned or data.split_file:
            assignment = f"the column {data.split!r} of {reviews.source}" if assigned else f"the split file {data.split_file}"
            raise DataError(
                f"{assignment} assigns rows to splits, and validation data was passed too; use only one of them: set "
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
    """The classes, in the order of their values, and the positive class if there are two.

    Args:
        rows: Training rows, all labelled.
        wanted: The positive class of two. Empty: the class with a name in `POSITIVE_NAMES`, or the last class.

    Raises:
        ConfigError: If the positive class does not exist, or is set although there are more than two classes.
        DataError: If there is only one class, or a class has the name of a decision.
    """
    classes = ordered(rows.require_complete()[1], rows.label_type)
    if taken := {REVIEW, NOT_FLAGGED} & set(classes):
        raise DataError(f"a class is named {min(taken)!r}, which is the name of a decision; rename the label")
    if len(classes) < 2:
        raise DataError(f"the training rows have only one label, {classes[0]!r}; a classifier needs at least two")
    if wanted and wanted not in classes:
        raise ConfigError(f"data.positive is {wanted!r}, which is not a class; {nearest(wanted, classes)}")
    if len(classes) > 2:
        if wanted:
            raise ConfigError(f"data.positive is {wanted!r}, but there are {len(classes)} classes; leave it empty")
        return classes, None
    return classes, wanted or default_positive(classes)


def default_positive(classes: Sequence[str]) -> str:
    """The class with a name in `POSITIVE_NAMES`, or else the last class."""
    named = [name for default in POSITIVE_NAMES for name in classes if name.casefold() == default]
    return named[0] if named else classes[-1]
