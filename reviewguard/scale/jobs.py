"""A job over parts: each is done by some actor, and the outcome is counted."""

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

#: Blocks that Ray is given at most; with more parts, some share one.
_BLOCKS: Final = 10_000


class Outcome(msgspec.Struct):
    """Of one part: what was counted ("rows" at least), or why it failed."""

    counts: dict[str, int]
    failure: str = ""


class Worker(ABC):
    """An actor that does parts one after the other. What Ray moves is their names and outcomes; rows go from file to file."""

    @abstractmethod
    def done(self, part: Part) -> dict[str, int]:
        """Do a part, once more if need be, and count."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Do the parts of a batch; a failure concerns its part alone."""
        for part in batch["part"].to_pylist():
            yield pa.table({"outcome": [msgspec.json.encode(self._outcome(msgspec.json.decode(part, type=Part)))]})

    def _outcome(self, part: Part) -> Outcome:
        try:
            return Outcome(self.done(part))
        except Exception as error:  # of a file system, say, whose classes nobody can list
            return Outcome({}, f"{part.source}, row groups {part.groups}: {error}")


def run(
    parts: Sequence[Part], worker: type[Worker], arguments: tuple[Any, ...], *, actors: int | None, title: str, gpus: float = 0
) -> Counter[str]:
    """Do all parts, with a progress bar.

    Args:
        parts: One at least.
        worker: What does them.
        arguments: Of its constructor.
        actors: At most; None: one for each core of the cluster.
        title: Of the bar.
        gpus: Of each actor.

    Raises:
        DataError: If some failed, after all others were done.
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
    # Ray's own bars count blocks.
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
            f"{min(failures)}. Mend it and run the same again: what is done is not computed again"
        )
    return counts
