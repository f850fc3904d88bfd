"""The exceptions of reviewguard, all derived from one base class.

```
ReviewGuardError
├── ConfigError (ValueError)
├── DataError (ValueError)
├── NotTrainedError (ValueError, AttributeError)
├── EncoderError (OSError)
├── BundleError (ValueError)
│   ├── IntegrityError
│   └── FormatVersionError
├── ExportError (RuntimeError)
├── PredictionError (RuntimeError)
├── HubError (RuntimeError)
├── CheckpointError (RuntimeError)
├── TrainingError (RuntimeError)
├── TrainingInterrupted (RuntimeError)
└── MissingExtra (ImportError)
```

Every message states the value received, the values allowed, and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ReviewGuardError(Exception):
    """Base class of all errors that reviewguard raises deliberately."""


class ConfigError(ReviewGuardError, ValueError):
    """A preset, option or option value is not allowed."""


class DataError(ReviewGuardError, ValueError):
    """Texts, labels, columns or files cannot be used as they are."""


class NotTrainedError(ReviewGuardError, ValueError, AttributeError):
    """A prediction was requested from an untrained model."""


class EncoderError(ReviewGuardError, OSError):
    """Encoder weights are missing, unsupported or different from the pinned ones."""


class BundleError(ReviewGuardError, ValueError):
    """A saved model cannot be read or written."""


class IntegrityError(BundleError):
    """A file of a saved model is missing or differs from what was written."""


class FormatVersionError(BundleError):
    """A saved model has a format version that this version of reviewguard does not support."""


class ExportError(ReviewGuardError, RuntimeError):
    """An export did not pass its checks; nothing was written."""


class PredictionError(ReviewGuardError, RuntimeError):
    """A model computed logits that are not finite."""


class HubError(ReviewGuardError, RuntimeError):
    """A model could not be uploaded to the Hugging Face Hub."""


class CheckpointError(ReviewGuardError, RuntimeError):
    """A training run cannot resume from its checkpoints."""


class TrainingError(ReviewGuardError, RuntimeError):
    """Training cannot continue: memory is exhausted, or the loss is not finite."""


class TrainingInterrupted(ReviewGuardError, RuntimeError):
    """A signal stopped training after a checkpoint was saved.

    Attributes:
        signum: Signal number.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type[TrainingInterrupted], tuple[str, int]]:
        return type(self), (str(self), self.signum)


class MissingExtra(ReviewGuardError, ImportError):
    """A required optional package is not installed; the message gives the pip command."""

    def __init__(self, package: str | None, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not in the base install; run: pip install 'reviewguard[{extra}]'",
            name=package,
        )
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str | None, str]]:
        return type(self), (self.name, self.extra)


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Convert a failed import of an optional package to `MissingExtra`.

    Args:
        extra: Name of the extra in pyproject.toml that includes the package.

    Raises:
        MissingExtra: If a module outside reviewguard is not found in the block.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == __name__.split(".")[0]:
            raise
        raise MissingExtra(error.name, extra) from error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Format a hint for an unknown name: "did you mean 'x'? Allowed: ..."."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"
