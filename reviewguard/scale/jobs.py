"""Run a job over parts on a pool of actors, and count the results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import ray.data
from tqdm import tqdm

from reviewguard.errors import DataError
from reviewguard.scale import cluster
from reviewguard.scale.parts import Part

#: Maximum number of Ray blocks; with more parts, a block contains several.
_BLOCKS: Final = 10_000


class Outcome(msgspec.Struct):
    """Result of one part: counts (with at least "rows"), or the reason for a failure."""

    counts: dict[str, int]
    failure: str = ""


class Worker(ABC):
    """An actor that processes parts one by one. Ray transfers only part descriptions and results; rows go from file to file."""

    @abstractmethod
    def done(self, part: Part) -> dict[str, int]:
        """Process a part and return its counts. May be called again for the same part."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Process the parts of a batch. A failure affects only its own part."""
        for part in batch["part"].to_pylist():
            yield pa.table({"outcome": [msgspec.json.encode(self._outcome(msgspec.json.decode(part, type=Part)))]})

    def _outcome(self, part: Part) -> Outcome:
        try:
            return Outcome(self.done(part))
        except Exception as error:  # file systems raise exceptions of many classes
            return Outcome({}, f"{part.source}, row groups {part.groups}: {error}")


def run(
    parts: Sequence[Part], worker: type[Worker], arguments: tuple[Any, ...], *, actors: int | None, title: str, gpus: float = 0
) -> Counter[str]:
    """Process all parts, with a progress bar.

    Args:
        parts: At least one part.
        worker: Class of the actors.
        arguments: Arguments of its constructor.
        actors: Maximum number of actors. None: the number of cores of the cluster.
        title: Title of the progress bar.
        gpus: Number of GPUs of each actor.

    Raises:
        DataError: If some parts failed, after all others are complete.
    """
    items = [{"part": msgspec.json.encode(part)} for part in parts]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), _BLOCKS)).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_format="pyarrow",
        batch_size=1,
        compute=cluster.pool(actors),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    # Ray's own progress bars count blocks.
    dataset.context.enable_progress_bars = False
    counts, failures, total = Counter[str](), list[str](), sum(part.rows for part in parts)
    with tqdm(total=total, desc=title, unit=" rows", unit_scale=True, disable=None) as bar:
        for row in dataset.iter_rows():
            outcome = msgspec.json.decode(row["outcome"], type=Outcome)
            counts.update(outcome.counts)
            failures += [outcome.failure] if outcome.failure else []
            bar.set_postfix({**counts, "failed parts": len(failures)}, refresh=False)
            bar.update(outcome.counts.get("rows", 0))
    if failures:
        raise DataError(
            f"{len(failures)} of {len(parts)} parts failed, and {counts['rows']} of {total} rows are done; the first failure: "
            f"{min(failures)}. Fix the cause and run the same command again: completed parts are not computed again"
        )
    return counts
