"""Settings of a server."""

from __future__ import annotations

from typing import Annotated

import msgspec

from reviewguard.inference.engines.select import Engine, Precision


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server accepts. Requests beyond a limit get an error and are not computed.

    Attributes:
        body_bytes: Maximum size of a request's body; beyond it, status 413.
        texts: Maximum number of texts of a request; beyond it, status 422.
        queue: Maximum number of texts that wait for the model; beyond it, status 429.
        body_seconds: Maximum time for a client to send a body; beyond it, status 408.
        wait_seconds: How long a batch waits for further requests while others are being answered. A lone request never waits.
    """

    body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 2**20
    texts: Annotated[int, msgspec.Meta(ge=1)] = 256
    queue: Annotated[int, msgspec.Meta(ge=1)] = 4096
    body_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.002


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server answers with; as JSON in the environment variable `REVIEWGUARD_SERVE` of worker processes.

    Attributes:
        model: Folder or Hub id of a trained model. None: the built-in model.
        name: Name of the model in paths, answers and metrics.
        revision: Commit on the Hub.
        runtime: Engine of an export.
        precision: Precision of an export.
        threads: Number of cores of an export; 0: all.
        limits: Limits of requests.
        watch_seconds: Interval at which the model's folder is looked at; if it has changed, the new model replaces the old one.
            0: never.
        challenger: Folder or Hub id of a second model, to compare with the first in an A/B test. None: no test.
        split: Percentage of the keys that the challenger answers.
        shadow: Whether the challenger only predicts what the first model answers, off the path of the answer.
        experiment: Name of the test; another name assigns keys anew.
        log: Folder of the log of decisions, which `reviewguard ab` reads. None: decisions are not logged.
        log_texts: Whether the log contains texts, not only their hashes.
    """

    model: str | None = None
    name: str = "reviewguard"
    revision: str | None = None
    runtime: Engine = "auto"
    precision: Precision = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    limits: Limits = Limits()
    watch_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    challenger: str | None = None
    split: Annotated[float, msgspec.Meta(gt=0, lt=100)] = 50.0
    shadow: bool = False
    experiment: str = ""
    log: str | None = None
    log_texts: bool = False

    def __post_init__(self) -> None:
        if self.challenger is None and (self.shadow or self.experiment):
            raise ValueError("shadow and experiment describe an A/B test; set challenger too")

    @property
    def challenger_name(self) -> str:
        """Name of the challenger in metrics."""
        return f"{self.name}-challenger"
