"""The errors of reviewguard, all of them under one root.

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

Every message says what was got, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ReviewGuardError(Exception):
    """Root of every error that reviewguard raises on purpose."""


class ConfigError(ReviewGuardError, ValueError):
    """A preset, option or option value that is not allowed."""


class DataError(ReviewGuardError, ValueError):
    """Texts, labels, columns or files that cannot be used as they are."""


class NotTrainedError(ReviewGuardError, ValueError, AttributeError):
    """A prediction was asked of a model that has not been trained."""


class EncoderError(ReviewGuardError, OSError):
    """Encoder weights are missing, unsupported, or not the pinned ones."""


class BundleError(ReviewGuardError, ValueError):
    """A saved model that cannot be read."""


class IntegrityError(BundleError):
    """A file of a saved model is missing or differs from what was written."""


class FormatVersionError(BundleError):
    """A saved model in a format version that this reviewguard does not know."""


class ExportError(ReviewGuardError, RuntimeError):
    """An export did not pass its gate; nothing was written."""


class PredictionError(ReviewGuardError, RuntimeError):
    """A model that computes no finite logits."""


class HubError(ReviewGuardError, RuntimeError):
    """A model could not be uploaded to the Hugging Face Hub."""


class CheckpointError(ReviewGuardError, RuntimeError):
    """A training run cannot go on from its checkpoints."""


class TrainingError(ReviewGuardError, RuntimeError):
    """Training cannot go on: out of memory, or a loss that is not finite."""


class TrainingInterrupted(ReviewGuardError, RuntimeError):
    """A signal stopped training; a checkpoint was saved first.

    Attributes:
        signum: Number of the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type[TrainingInterrupted], tuple[str, int]]:
        return type(self), (str(self), self.signum)


class MissingExtra(ReviewGuardError, ImportError):
    """An optional package is needed; the message names the pip command."""

    def __init__(self, package: str | None, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which the base install leaves out; run: pip install 'reviewguard[{extra}]'",
            name=package,
        )
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str | None, str]]:
        return type(self), (self.name, self.extra)


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Turn a failed import of an optional package into `MissingExtra`.

    Args:
        extra: Name of the extra in pyproject.toml that brings the package.

    Raises:
        MissingExtra: If a module outside reviewguard could not be found in the block.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == __name__.split(".")[0]:
            raise
        raise MissingExtra(error.name, extra) from error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say what a misspelt name may have meant: "did you mean 'x'? Allowed: ..."."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"
