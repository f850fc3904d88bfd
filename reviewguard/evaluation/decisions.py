"""Set a model's decisions on held-out rows. Each function returns a new model and leaves the given one unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from reviewguard.bundle.decision import Abstention, Decision, OperatingPoint
from reviewguard.data.reviews import class_indices
from reviewguard.data.tables import Data
from reviewguard.errors import ConfigError, DataError
from reviewguard.evaluation import calibration, operating
from reviewguard.evaluation import windows as long_texts
from reviewguard.evaluation.calibration import Calibration
from reviewguard.evaluation.held_out import held_out_rows
from reviewguard.evaluation.windows import WindowChoice
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.rows import labelled_rows

_NO_LENGTHS = "the validation rows stored with this model have no lengths; pass labelled rows as data"


def calibrate(trained: TrainedModel, data: Data | None, split: str) -> tuple[TrainedModel, Calibration]:
    """Set the temperature. See `reviewguard.Classifier.calibrate`."""
    rows = held_out_rows(trained, data, split)
    report = calibration.calibrate(rows.logits, rows.y)
    return _with_decision(trained, temperature=report.temperature), report


def set_windows(
    trained: TrainedModel, data: Data, split: str, overlap: int | None, max_windows: int
) -> tuple[TrainedModel, WindowChoice]:
    """Select how long texts are read. See `reviewguard.Classifier.set_windows`."""
    manifest = trained.manifest
    overlap = manifest.max_length // 4 if overlap is None else overlap
    if not 0 <= 2 * overlap <= manifest.max_length:
        raise ConfigError(f"overlap is {overlap}; it must be between 0 and half of the {manifest.max_length} tokens")
    if max_windows < 2:
        raise ConfigError(f"max_windows is {max_windows}; it must be at least 2: a model without windows already reads one")
    texts, labels = labelled_rows(manifest, data, split=split).require_complete(manifest.classes)
    choice = long_texts.choose(trained, texts, class_indices(labels, manifest.classes), overlap, max_windows)
    if choice.windows != manifest.windows and manifest.decision != Decision():
        warnings.warn(
            "calibration, thresholds and abstention were set on different logits and are removed; set them again", stacklevel=3
        )
        trained = _with_decision(trained, temperature=1.0, operating_point=None, abstention=None)
    return trained.with_windows(choice.windows), choice


def set_operating_point(
    trained: TrainedModel, data: Data | None, split: str, max_fpr: float, by_length: Sequence[int], group: str
) -> tuple[TrainedModel, OperatingPoint]:
    """Set the threshold. See `reviewguard.Classifier.set_operating_point`."""
    manifest = trained.manifest
    if manifest.positive is None or trained.positive is None:
        classes = len(manifest.classes)
        raise ConfigError(f"an operating point requires two classes, and the model has {classes}; see set_abstention")
    rows = held_out_rows(trained, data, split, group)
    if by_length and rows.words is None:
        raise DataError(_NO_LENGTHS)
    point = operating.operating_point(
        rows.logits,
        rows.y,
        trained.positive,
        max_fpr,
        name=manifest.positive,
        words=rows.words,
        by_length=by_length,
        groups=rows.groups,
    )
    # A floor set by review_rate is relative to the previous thresholds, and is meaningless with new ones.
    abstention = manifest.decision.abstention
    if abstention is not None and abstention.review_rate is not None:
        abstention = None
    return _with_decision(trained, operating_point=point, abstention=abstention), point


def set_abstention(
    trained: TrainedModel,
    data: Data | None,
    split: str,
    error_rate: float | None,
    review_rate: float | None,
    one_sided: bool,
) -> tuple[TrainedModel, Abstention]:
    """Set abstention. See `reviewguard.Classifier.set_abstention`."""
    if (error_rate is None) == (review_rate is None):
        raise ConfigError(f"give exactly one of error_rate and review_rate; got {error_rate} and {review_rate}")
    if review_rate is not None and not one_sided:
        raise ConfigError("review_rate requires one-sided decisions; pass one_sided=True as well, or use error_rate")
    if one_sided and trained.positive is None:
        classes = len(trained.manifest.classes)
        raise ConfigError(f"one-sided decisions require two classes, and the model has {classes}; omit one_sided")
    rows = held_out_rows(trained, data, split)
    if review_rate is None:
        assert error_rate is not None
        abstention = operating.abstain_by_error_rate(rows.logits, rows.y, error_rate, one_sided=one_sided)
    else:
        assert trained.positive is not None
        if rows.words is None:
            raise DataError(_NO_LENGTHS)
        abstention = operating.abstain_by_review_rate(
            rows.logits, rows.y, trained.positive, review_rate, trained.manifest.decision, rows.words
        )
    return _with_decision(trained, abstention=abstention), abstention


def _with_decision(trained: TrainedModel, **changes: Any) -> TrainedModel:
    decision = msgspec.structs.replace(trained.manifest.decision, **changes)
    return replace(trained, manifest=msgspec.structs.replace(trained.manifest, decision=decision))
