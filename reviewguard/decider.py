"""How a trained model's answers are read: calibrated, at an operating point, with abstention."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from reviewguard import config, trained_on
from reviewguard.bundle import Manifest
from reviewguard.data.reviews import Data, Reviews, class_indices, read, texts_of
from reviewguard.decision import Decision, OperatingPoint, Triage
from reviewguard.errors import ConfigError, DataError, NotTrainedError, nearest, requires
from reviewguard.estimator import Estimator
from reviewguard.fitted import Fitted
from reviewguard.scoring import Prediction
from reviewguard.tokens import word_counts

if TYPE_CHECKING:
    from reviewguard.evaluation.held_out import HeldOut
    from reviewguard.evaluation.operating import Calibration
    from reviewguard.evaluation.reading import Reading


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
        rows = self._held_out(data, split)
        found = operating.calibrate(rows.logits, rows.y)
        self._decide(temperature=found.temperature)
        return found

    def set_windows(self, data: Data, *, overlap: int | None = None, most: int = 8, split: str = "") -> Reading:
        """Read texts that are longer than the model reads at once in overlapping windows, if that is better on held-out rows.

        Compared are the first window alone, the mean of the windows' logits, and the window that looks most positive. Texts that
        fit into one window are read as before. Set it first: a new choice removes calibration, thresholds and abstention, which
        were set on other logits.

        Args:
            data: As for `calibrate`; needed here, as training keeps no texts.
            overlap: Tokens that a window shares with the one before; None: a quarter of what the model reads.
            most: Windows read of a text at most; 2 or more.
            split: As for `calibrate`.

        Returns:
            What was chosen, and how the others did.

        Raises:
            ConfigError: If the overlap is over half a window, or `most` is below 2.
            DataError: As `calibrate`, or if too few rows are longer than one window.
            NotTrainedError: Before training.

        Warns:
            UserWarning: If decisions were set before, and are removed.
        """
        with requires("train"):
            from reviewguard.evaluation import reading
        fitted = self._trained()
        overlap = fitted.manifest.max_length // 4 if overlap is None else overlap
        if not 0 <= 2 * overlap <= fitted.manifest.max_length:
            raise ConfigError(
                f"overlap is {overlap}; it is at least 0, and at most half of the {fitted.manifest.max_length} tokens"
            )
        if most < 2:
            raise ConfigError(f"most is {most}; it is at least 2, for one window is what a model reads anyway")
        texts, labels = self._read(data, split).require_complete(fitted.manifest.classes)
        found = reading.choose(fitted, texts, class_indices(labels, fitted.manifest.classes), overlap, most)
        if found.windows != fitted.manifest.windows and fitted.manifest.decision != Decision():
            warnings.warn(
                "calibration, thresholds and abstention were set on other logits and are removed; set them again", stacklevel=2
            )
            self._decide(temperature=1.0, point=None, triage=None)
        self._fitted = self._trained().read_by(found.windows)
        return found

    def set_operating_point(
        self, data: Data | None = None, *, max_fpr: float, by_length: Sequence[int] = (), group: str = "", split: str = ""
    ) -> OperatingPoint:
        """Call a text positive only from where at most this share of the other texts is called so, by expectation on new ones.

        It changes `predict`, `stream` and `evaluate`; probabilities stay. A review threshold that was set before
        (`set_triage(review_rate=...)`) is removed: set it again.

        Args:
            data: As for `calibrate`.
            max_fpr: False-positive rate, between 0 and 1.
            by_length: Lower bounds of bands of lengths, in words, such as `(8, 20, 40, 80)`. Each band gets a threshold of its
                own, and texts that are shorter than the first need review. Empty: one threshold for every length.
            group: Column of groups, such as a domain. The rate is held in each that has at least 150 negative rows, and in
                the others together, by the one that needs the highest threshold. Empty: over all rows. It needs `data`.
            split: As for `calibrate`.

        Returns:
            The threshold, with the rates to expect and their intervals, by band and group too; its `precision(prevalence)` is for
            your own mixture.

        Raises:
            ConfigError: If there are more than two classes, the rate is not between 0 and 1, or the bands do not ascend.
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
        rows = self._held_out(data, split, group)
        if by_length and rows.words is None:
            raise DataError("the validation rows that this model keeps have no lengths; pass labelled rows as data")
        point = operating.operating_point(
            rows.logits,
            rows.y,
            positive,
            max_fpr,
            name=manifest.positive,
            words=rows.words,
            by_length=by_length,
            groups=rows.groups,
        )
        # A floor for review lies below the thresholds that it was set for; it would mean nothing below others.
        triage = manifest.decision.triage
        self._decide(point=point, triage=None if triage and triage.review_rate is not None else triage)
        return point

    def set_triage(
        self,
        data: Data | None = None,
        *,
        error_rate: float | None = None,
        review_rate: float | None = None,
        one_sided: bool = False,
        split: str = "",
    ) -> Triage:
        """Let the model abstain: decide on a text only where that is safe, and send the others to review.

        Give one of the two rates. One-sided, a decision is the positive class, "needs_review" or "not_flagged", and never the
        other class: that a detector has nothing against a text does not show that a person wrote it. The positive class is then
        decided on from the operating point on, if one is set: set it first.

        Args:
            data: As for `calibrate`.
            error_rate: Of each class, at most this share gets another, by expectation on new texts; one-sided, at most this share
                of the positive class is not flagged. Between 0 and 1.
            review_rate: Share of the negatives that may go to review; one-sided only. Between 0 and 1.
            one_sided: See above; for two classes.
            split: As for `calibrate`.

        Raises:
            ConfigError: If the rate is not between 0 and 1, not just one is given, or there are more than two classes for a
                one-sided decision.
            DataError: As `calibrate`.
            NotTrainedError: Before training.
        """
        with requires("train"):
            from reviewguard.evaluation import operating
        manifest, positive = self.manifest, self._trained().positive
        if (error_rate is None) == (review_rate is None):
            raise ConfigError(f"give one of error_rate and review_rate; got {error_rate} and {review_rate}")
        if review_rate is not None and not one_sided:
            raise ConfigError("review_rate is for one-sided decisions; pass one_sided=True too, or an error_rate")
        if one_sided and positive is None:
            raise ConfigError(
                f"one-sided decisions are for two classes, and there are {len(manifest.classes)}; leave one_sided out"
            )
        rows = self._held_out(data, split)
        if review_rate is None:
            assert error_rate is not None
            found = operating.triage(rows.logits, rows.y, error_rate, one_sided=one_sided)
        else:
            assert positive is not None
            if rows.words is None:
                raise DataError("the validation rows that this model keeps have no lengths; pass labelled rows as data")
            found = operating.review(rows.logits, rows.y, positive, review_rate, manifest.decision, rows.words)
        self._decide(triage=found)
        return found

    def triage(self, texts: Iterable[str]) -> list[Prediction]:
        """What the model says of each text; `decision` is a class, "needs_review" or, of a one-sided model, "not_flagged".

        Raises:
            ConfigError: If `set_triage` was never called.
            DataError, NotTrainedError: As `predict`.
        """
        if self.manifest.decision.triage is None:
            raise ConfigError("this model was not set to abstain; call set_triage(error_rate=...) first, and save it")
        return self._trained().predictions(self._texts(texts))

    def _held_out(self, data: Data | None, split: str, group: str = "") -> HeldOut:
        from reviewguard.evaluation import held_out

        fitted = self._trained()
        if data is None:
            if fitted.manifest.windows is not None:
                raise DataError("the validation rows that this model keeps were not read in windows; pass labelled rows as data")
            if group:
                raise DataError(
                    f"group is {group!r}, a column of data, and none were passed: pass labelled rows with that column"
                )
            return held_out.kept(fitted)
        reviews = self._read(data, split)
        if group and group not in reviews.columns:
            raise DataError(f"{reviews.source} has no column {group!r} of groups; {nearest(group, reviews.columns)}")
        texts, labels = reviews.require_complete(fitted.manifest.classes)
        if (seen := trained_on.seen(fitted, texts)) is not None and seen.any():
            warnings.warn(
                f"the model was trained on {seen.sum()} of {len(texts)} texts of {reviews.source}; what is set on them promises "
                "too much: pass rows that it was not trained on",
                stacklevel=3,
            )
        logits, encoded = fitted.logits(texts, "scoring")
        return held_out.HeldOut(
            logits,
            class_indices(labels, fitted.manifest.classes),
            word_counts(encoded),
            [str(value) for value in reviews.columns[group]] if group else None,
        )

    def _decide(self, **changes: Any) -> None:
        fitted = self._trained()
        decision = msgspec.structs.replace(fitted.manifest.decision, **changes)
        self._fitted = replace(fitted, manifest=msgspec.structs.replace(fitted.manifest, decision=decision))

    def _read(self, data: Data, split: str, text: str = "", label: str = "") -> Reviews:
        """Labelled rows, from the columns that the model was trained on unless others are named."""
        columns = config.decode(self.manifest.recipe.get("data", {}), config.DataConfig, "data")
        reviews = read(data, text=text or columns.text, label=label or columns.label).labelled_as(self.manifest.label_type)
        if not split:
            return reviews
        from reviewguard.data.split import only

        return only(reviews, columns.split, split)

    def _texts(self, texts: Iterable[str]) -> list[str]:
        """Texts to be predicted, from a table's column that the model was trained on, or the usual ones."""
        return texts_of(texts, self.manifest.text_column)

    def _trained(self) -> Fitted:
        if self._fitted is None:
            raise NotTrainedError(
                f"{self!r} has not been trained; call train(data), or load a trained model with "
                "Classifier.from_pretrained(folder)"
            )
        return self._fitted
