"""Records of experiments: jobs, their rows and their results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import msgspec

from reviewguard.data.clean import CleaningReport
from reviewguard.data.reviews import Reviews
from reviewguard.evaluation.metrics import Scores
from reviewguard.experiments.rows import digest
from reviewguard.training.history import History


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of a run.

    Attributes:
        name: Name of the candidate.
        trained_on: Name of the training rows.
        recipe: All settings, the seed included.
        max_fpr: False positive rate that the operating point is set for, on the validation rows.
    """

    name: str
    trained_on: str
    recipe: dict[str, Any]
    max_fpr: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job with its rows; the scored rows are named."""

    job: Job
    train: Reviews
    validation: Reviews
    scored: Mapping[str, Reviews]

    @property
    def key(self) -> str:
        """A hash of settings, rows and library version; a finished run with the same key is not repeated."""
        rows = digest({"train": self.train, "validation": self.validation, **self.scored})
        return hashlib.sha256(msgspec.json.encode([version("reviewguard"), self.job, rows], order="deterministic")).hexdigest()[
            :16
        ]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a run.

    Attributes:
        seconds: Training time. Heads on frozen embeddings share a cache: the first run that needs them pays for them.
        peak_memory_mib: Peak memory of the process; None if the system does not report it.
        gpu_memory_mib: Peak memory of tensors on the GPU; None without a GPU.
        model_mib: Size of the weights.
        reviews_per_second: Speed from text to logits on scored rows, in torch on the same machine.
        device: Name of the device.
        packages: Package versions.
    """

    seconds: float
    peak_memory_mib: float | None
    gpu_memory_mib: float | None
    model_mib: float
    reviews_per_second: float
    device: str
    packages: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run.

    Attributes:
        key: See `Task.key`.
        job: The job.
        outcome: "done" or "failed". A failed run is retried by the next call.
        error: Message of the error if the run failed.
        rows: Number of training rows after cleaning.
        classes: Class names in the order of the logits.
        positive: The positive class; None with more than two classes.
        cleaning: Rows dropped by cleaning. None: the run failed.
        scores: Scores of the most probable class, by the name of the rows.
        at_point: Scores at the operating point, by the name of the rows; empty with more than two classes.
        truncated: Number of scored rows that were truncated, by the name of the rows.
        notes: Warnings of the run.
        cost: The cost of the run.
        history: History of fine-tuning; None for other backends.
        logits_sha256: SHA-256 of the file with the logits of the scored rows.
    """

    key: str
    job: Job
    outcome: Literal["done", "failed"]
    error: str = ""
    rows: int = 0
    classes: list[str] = []
    positive: str | None = None
    cleaning: CleaningReport | None = None
    scores: dict[str, Scores] = {}
    at_point: dict[str, Scores] = {}
    truncated: dict[str, int] = {}
    notes: list[str] = []
    cost: Cost | None = None
    history: History | None = None
    logits_sha256: str = ""
