"""Rows and texts for a trained model, from the columns that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable

from reviewguard import config
from reviewguard.bundle.manifest import Manifest
from reviewguard.data.assigned import only
from reviewguard.data.reviews import Data, Reviews, read, texts_of


def labelled_rows(manifest: Manifest, data: Data, *, split: str = "", text: str = "", label: str = "") -> Reviews:
    """Read labelled rows as the model's training rows were read.

    Args:
        manifest: Of the model.
        data: As for `reviewguard.Classifier.train`.
        split: Only rows with this value in the column of splits; empty: all rows.
        text: Column of the texts; empty: as in training.
        label: Column of the labels; empty: as in training.

    Raises:
        DataError: If the data or a column cannot be used.
    """
    columns = config.decode(manifest.recipe.get("data", {}), config.DataConfig, "data")
    rows = read(data, text=text or columns.text, label=label or columns.label).labelled_as(manifest.label_type)
    return only(rows, columns.split, split) if split else rows


def texts_for(manifest: Manifest, texts: Iterable[str]) -> list[str]:
    """Texts to predict; of a table, the column that the model was trained on, or one with a usual name.

    Raises:
        DataError: If `texts` is a single string, or holds something other than strings.
    """
    return texts_of(texts, manifest.text_column)
