"""Classification of fake reviews and other texts: train on your own data, export to ONNX, predict without torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from reviewguard import telemetry

if TYPE_CHECKING:
    from reviewguard.classifier import Classifier
    from reviewguard.errors import (
        BundleError,
        CheckpointError,
        ConfigError,
        DataError,
        EncoderError,
        ExportError,
        FormatVersionError,
        HubError,
        IntegrityError,
        MissingExtra,
        NotTrainedError,
        PredictionError,
        ReviewGuardError,
        TrainingError,
        TrainingInterrupted,
    )
    from reviewguard.export.report import ExportReport, Limits
    from reviewguard.inference.scoring import Prediction

telemetry.switch_off()

# Names are imported on first use (PEP 562), so that importing the package is fast.
_HOME: Final = {
    "Classifier": "classifier",
    "ExportReport": "export.report",
    "Limits": "export.report",
    "Prediction": "inference.scoring",
    **dict.fromkeys(
        (
            "BundleError",
            "CheckpointError",
            "ConfigError",
            "DataError",
            "EncoderError",
            "ExportError",
            "FormatVersionError",
            "HubError",
            "IntegrityError",
            "MissingExtra",
            "NotTrainedError",
            "PredictionError",
            "ReviewGuardError",
            "TrainingError",
            "TrainingInterrupted",
        ),
        "errors",
    ),
}

__all__ = [
    "BundleError",
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "DataError",
    "EncoderError",
    "ExportError",
    "ExportReport",
    "FormatVersionError",
    "HubError",
    "IntegrityError",
    "Limits",
    "MissingExtra",
    "NotTrainedError",
    "Prediction",
    "PredictionError",
    "ReviewGuardError",
    "TrainingError",
    "TrainingInterrupted",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
