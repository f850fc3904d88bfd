"""How a trained model's answers are read: calibrated, at an operating point, with abstention."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard import config
from reviewguard.bundle import Manifest
from reviewguard.data.reviews import Data, Reviews, class_indices, read
from reviewguard.decision import OperatingPoint, Triage
from reviewguard.errors import ConfigError, DataError, NotTrainedError, requires
from reviewguard.estimator import Estimator
from reviewguard.fitted import Fitted
from reviewguard.scoring import Floats, Prediction

if TYPE_CHECKING:
    from reviewguard.evaluation.operating import Calibration


class Decider(Estimator):
    """The part of `reviewguard.Classifier` that sets decisions on held-out rows; they are saved with the model."""

    def __init__(self, preset: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> None:
        """Take the settings; there is no trained model yet."""
        super().__init__(preset, **overrides)
        self._fitted: Fitted | None = None

    @property
    def manifest(self) -> Manifest:
        """What the trained model is: classes, recipe, training report, and the hashes of a saved model's files."""
        return self._trained().manifest

    def calibrate(self, data: Data | None = None, *, split: str = "") -> Calibration:
        """Make probabilities mean what they say: by a temperature (Guo et al. 2017), which leaves every label as it is.

        Args:
            data: Labelled rows that were not trained on, as for `train`; None: the validation rows of training, which chose the
                epoch or when to stop, and flatter a little.
            split: Only rows with this value in the column of splits; empty: all rows.

        Returns:
            The temperature, and the expected calibration error before and after.

        Raises:
            DataError: If rows cannot be used, or training kept no validation rows.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import operating
        found = operating.calibrate(*self._held_out(data, split))
        self._decide(temperature=found.temperature)
        return found

    def set_operating_point(self, data: Data | None = None, *, max_fpr: float, split: str = "") -> OperatingPoint:
        """Call a text positive only from where at most this share of the other texts is called so, by expectation on new ones.

        It changes `predict`, `stream` and `evaluate`; probabilities stay.

        Args:
            data: As for `calibrate`.
            max_fpr: False-positive rate, between 0 and 1.
            split: As for `calibrate`.

        Returns:
            The threshold, with the rates to expect and their intervals; its `precision(prevalence)` is for your own mixture.

        Raises:
            ConfigError: If there are more than two classes, or the rate is not between 0 and 1.
            DataError: As `calibrate`.
            NotTrainedError: Before training.

        Warns:
            UserWarning: If the rows are too few to hold the rate, or to know it.
        """
        with requires("train"):
            from reviewguard.evaluation import operating
        manifest, positive = self.manifest, self._trained().positive
        if manifest.positive is None or positive is None:
            raise ConfigError(f"an operating point is for two classes, and there are {len(manifest.classes)}; see set_triage")
        point = operating.operating_point(*self._held_out(data, split), positive, max_fpr, name=manifest.positive)
        self._decide(point=point)
        return point

    def set_triage(self, data: Data | None = None, *, error_rate: float, split: str = "") -> Triage:
        """Let `triage` leave texts to people, so that of each class at most this share gets another, by expectation on new ones.

        Args:
            data: As for `calibrate`.
            error_rate: Between 0 and 1.
            split: As for `calibrate`.

        Raises:
            ConfigError: If the rate is not between 0 and 1.
            DataError: As `calibrate`.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import operating
        found = operating.triage(*self._held_out(data, split), error_rate)
        self._decide(triage=found)
        return found

    def triage(self, texts: Iterable[str]) -> list[Prediction]:
        """What the model says of each text; `decision` is a class, or "needs_review".

        Raises:
            ConfigError: If `set_triage` was never called.
            DataError, NotTrainedError: As `predict`.
        """
        if self.manifest.decision.triage is None:
            raise ConfigError("this model was not set to abstain; call set_triage(error_rate=...) first, and save it")
        return self._trained().predictions(checked(texts))

    def _held_out(self, data: Data | None, split: str) -> tuple[Floats, NDArray[np.int64]]:
        fitted = self._trained()
        if data is None:
            from reviewguard.evaluation import held_out

            return held_out.kept(fitted)
        texts, labels = self._read(data, split).require_complete(fitted.manifest.classes)
        return fitted.logits(texts, "scoring")[0], class_indices(labels, fitted.manifest.classes)

    def _decide(self, **changes: Any) -> None:
        fitted = self._trained()
        decision = msgspec.structs.replace(fitted.manifest.decision, **changes)
        self._fitted = replace(fitted, manifest=msgspec.structs.replace(fitted.manifest, decision=decision))

    def _read(self, data: Data, split: str, text: str = "", label: str = "") -> Reviews:
        """Labelled rows, from the columns that the model was trained on unless others are named."""
        columns = config.decode(self.manifest.recipe.get("data", {}), config.DataConfig, "data")
        reviews = read(data, text=text or columns.text, label=label or columns.label)
        if not split:
            return reviews
        from reviewguard.data.split import only

        return only(reviews, columns.split, split)

    def _trained(self) -> Fitted:
        if self._fitted is None:
            raise NotTrainedError(
                f"{self!r} has not been trained; call train(data), or load a trained model with "
                "Classifier.from_pretrained(folder)"
            )
        return self._fitted


def checked(texts: Iterable[str]) -> list[str]:
    """Texts as a list.

    Raises:
        DataError: If they are a single string, or hold something other than strings.
    """
    if isinstance(texts, str):
        raise DataError("texts is a single string; pass a list of texts, such as [text]")
    checked = list(texts)
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise DataError(f"texts[{row}] is {type(text).__name__} {text!r}; every text must be a string")
    return checked
