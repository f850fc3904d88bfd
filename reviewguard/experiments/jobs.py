"""Records of experiments: jobs, the rows for them, and what came of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

import msgspec

from reviewguard.data.clean import CleaningReport
from reviewguard.data.reviews import Reviews
from reviewguard.evaluation.metrics import Scores
from reviewguard.experiments.rows import digest
from reviewguard.training.history import History

#: Stands for the baseline of reports where a preset or a backend is named.
BASELINE: Final = "tfidf"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does.

    Attributes:
        name: Of the candidate.
        trained_on: Name of the rows that it is trained on.
        recipe: Every setting, the seed included; of the backend "tfidf", which is the baseline, only those of the data count.
        max_fpr: False-positive rate that the operating point is set for, on the validation rows.
    """

    name: str
    trained_on: str
    recipe: dict[str, Any]
    max_fpr: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job, and the rows for it: what is scored has a name each."""

    job: Job
    train: Reviews
    validation: Reviews
    scored: Mapping[str, Reviews]

    @property
    def key(self) -> str:
        """What decides whether a run was done already: settings, rows and the version of the library."""
        rows = digest({"train": self.train, "validation": self.validation, **self.scored})
        return hashlib.sha256(msgspec.json.encode([version("reviewguard"), self.job, rows], order="deterministic")).hexdigest()[
            :16
        ]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cost.

    Attributes:
        seconds: Training. Heads on frozen vectors share a cache: the first to need the vectors pays for them.
        peak_memory_mib: Of the whole process; None where the system does not tell.
        gpu_memory_mib: Most that tensors took on the GPU at once; None without one.
        model_mib: Size of the weights.
        reviews_per_second: From text to logits, in torch on the same machine, on scored rows.
        device: What it ran on.
        packages: Versions of what it ran with.
    """

    seconds: float
    peak_memory_mib: float | None
    gpu_memory_mib: float | None
    model_mib: float
    reviews_per_second: float
    device: str
    packages: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    Attributes:
        key: See `Task.key`.
        job: What it did.
        outcome: A failed run is tried again next time.
        error: Why it failed.
        rows: Rows that were trained on, after cleaning.
        classes: In the order of the logits.
        positive: The class that binary metrics are about; None with more than two.
        cleaning: What was dropped before; None for the baseline, which takes every row.
        scores: By the name of the rows: of the most probable class.
        at_point: The same, at the operating point; empty with more than two classes.
        notes: Warnings that came up.
        cost: See `Cost`.
        history: Of fine-tuning.
        logits_sha256: Of the file with the logits of the scored rows.
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
    notes: list[str] = []
    cost: Cost | None = None
    history: History | None = None
    logits_sha256: str = ""
