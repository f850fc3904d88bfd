"""Read rows and texts for a trained model, from the columns that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable

from reviewguard import config
from reviewguard.bundle.manifest import Manifest
from reviewguard.data.assigned import only
from reviewguard.data.reviews import Reviews, read
from reviewguard.data.tables import Data
from reviewguard.data.texts import texts_of


def labelled_rows(manifest: Manifest, data: Data, *, split: str = "", text: str = "", label: str = "") -> Reviews:
    """Read labelled rows with the settings of the training data.

    Args:
        manifest: The model's manifest.
        data: Labelled rows, as for `reviewguard.Classifier.train`.
        split: Value of the split column; only these rows are used. Empty: all rows.
        text: Name of the text column. Empty: as in training.
        label: Name of the label column. Empty: as in training.

    Raises:
        DataError: If the data or a column cannot be used.
    """
    columns = config.decode(manifest.recipe.get("data", {}), config.DataConfig, "data")
    rows = read(data, text=text or columns.text, label=label or columns.label).labelled_as(manifest.label_type)
    return only(rows, columns.split, split) if split else rows


def texts_for(manifest: Manifest, texts: Iterable[str]) -> list[str]:
    """Get the texts to predict. From a table, use the text column of the training data, or a column with a common name.

    Raises:
        DataError: If `texts` is a single string, or contains an element that is not a string.
    """
    return texts_of(texts, manifest.text_column)
