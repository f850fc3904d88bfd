"""Predictions on Ray Data, for a Ray dataset or for Parquet files."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from reviewguard.errors import DataError
from reviewguard.inference.engines.select import Engine, Precision
from reviewguard.inference.streaming import Summary
from reviewguard.scale import cluster, jobs, parts, rows
from reviewguard.scale.parts import Part, Place

#: Default number of rows per part: minutes of work on one core, which are lost if a worker fails.
PART_ROWS: Final = 20_000
#: File in the output folder that identifies the job. Parquet readers ignore names with an underscore.
RECORD: Final = "_reviewguard.json"


def predict_dataset(
    dataset: ray.data.Dataset,
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    text: str = "",
    runtime: Engine = "auto",
    precision: Precision = "auto",
    actors: int | None = None,
) -> ray.data.Dataset:
    """Add predictions to a Ray dataset, lazily.

    Args:
        dataset: Dataset with a text column and any other columns.
        model: Folder or Hub id of an export. None: the built-in model. The model is loaded once on this machine and then
            distributed to the nodes.
        revision: Commit, branch or tag on the Hub.
        token: Hub token for private repositories.
        text: Name of the text column. Empty: as in training.
        runtime: Engine, see `reviewguard.Classifier.from_pretrained`.
        precision: Precision, see `reviewguard.Classifier.from_pretrained`.
        actors: Maximum number of actors, with one core each. None: the number of cores of the cluster.

    Returns:
        The dataset with the additional columns `predicted_label`, `predicted_score`, `score_CLASS` for each class, `decision`,
        `truncated`, `out_of_distribution` and `error`, as written by `reviewguard predict`.

    Raises:
        ConfigError: If the model is not an export.
        DataError: At execution, if there is no text column, or if the dataset already has one of the columns above.
    """
    _, shipped = cluster.ship(model, revision, token, runtime, precision)
    return dataset.map_batches(
        _Rows,
        fn_constructor_args=(shipped, text),
        batch_format="pyarrow",
        batch_size=parts.BATCH_ROWS,
        compute=cluster.pool(actors),
        num_cpus=1,
    )


class _Rows:
    """An actor that predicts batches of rows."""

    def __init__(self, shipped: cluster.Shipped, text: str) -> None:
        self._model = shipped.load()
        self._text = text

    def __call__(self, table: pa.Table) -> pa.Table:
        return rows.predicted(self._model, table, self._text, "the dataset")


def predict_parquet(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    text: str = "",
    runtime: Engine = "auto",
    precision: Precision = "auto",
    actors: int | None = None,
    part_rows: int = PART_ROWS,
    storage_options: dict[str, Any] | None = None,
) -> Summary:
    """Add predictions to every row of any amount of Parquet, on all cores of a Ray cluster.

    The input is divided into parts at row group boundaries. Each part becomes one output file, which is written completely or
    not at all. After an interruption, an identical call computes only parts whose file is missing or whose source has changed.
    The order of rows and the other columns are kept.

    Args:
        source: Parquet file, folder of Parquet files, or glob pattern; a path or any URL supported by fsspec, such as s3://.
        out: Output folder or URL; new, empty, or of the same job. Output files are named after their sources.
        model: Folder or Hub id of an export. None: the built-in model.
        revision: Commit, branch or tag on the Hub.
        token: Hub token for private repositories.
        text: Name of the text column. Empty: as in training.
        runtime: Engine, see `reviewguard.Classifier.from_pretrained`.
        precision: Precision, see `reviewguard.Classifier.from_pretrained`.
        actors: Maximum number of actors, with one core each. None: the number of cores of the cluster.
        part_rows: Approximate number of rows per part. Smaller parts lose less work when a worker fails; larger parts result in
            fewer files.
        storage_options: Options for fsspec, for both `source` and `out`.

    Returns:
        Number of rows, errors, and truncated and out-of-distribution texts.

    Raises:
        ConfigError: If the model is not an export.
        DataError: If the input cannot be used, if the folder belongs to another job, or if parts could not be read or written.
            In the last case, all other parts are complete.
    """
    started = time.perf_counter()
    places = Place.of(source, storage_options), Place.of(out, storage_options)
    if f"{places[1].path}/".startswith(f"{places[0].path}/"):
        raise DataError(f"{places[1].path} is inside the input, so outputs would be read as input; choose a folder outside of it")
    with cluster.connected():
        trained, shipped = cluster.ship(model, revision, token, runtime, precision)
        planned = parts.plan(places[0], part_rows)
        job = hashlib.sha256(msgspec.json.encode([trained.manifest, text, runtime, precision, part_rows])).hexdigest()
        _begin(places[1], job, {part.target for part in planned})
        counts = jobs.run(planned, _Parts, (shipped, text, *places), actors=actors, title="predicting")
    return Summary(
        **{name: counts[name] for name in ("rows", "resumed", "errors", "truncated", "out_of_distribution")},
        out=os.fspath(out),
        seconds=time.perf_counter() - started,
    )


def _begin(out: Place, job: str, targets: set[str]) -> None:
    """Create the record of a job in its output folder, or check the existing one."""
    record = f"{out.path}/{RECORD}"
    with parts.translated(f"use {out.path} for the output"):
        out.fs.makedirs(out.path, exist_ok=True)
        existing = [name.removeprefix(f"{out.path}/") for name in out.fs.find(out.path)]
        recorded = msgspec.json.decode(out.fs.cat_file(record), type=dict[str, str]) if RECORD in existing else None
        if recorded is None and existing:
            raise DataError(f"{out.path} contains files of another origin, such as {existing[0]!r}; choose a new folder")
        if recorded is not None and recorded.get("job") != job:
            raise DataError(f"{out.path} was started with another model, text column or part size; choose a new folder")
        if stale := sorted(name for name in existing if name.endswith(".parquet") and name not in targets):
            raise DataError(
                f"{out.path} contains parts of files that are no longer in the input, such as {stale[0]!r}; remove them"
            )
        for name in existing:
            if name.endswith(".tmp"):  # left by a worker that was killed
                out.fs.rm_file(f"{out.path}/{name}")
        if recorded is None:
            out.fs.pipe_file(record, msgspec.json.encode({"job": job}))


class _Parts(jobs.Worker):
    """An actor that predicts parts."""

    def __init__(self, shipped: cluster.Shipped, text: str, source: Place, out: Place) -> None:
        self._model = shipped.load()
        self._text, self._source, self._out = text, source, out

    def done(self, part: Part) -> dict[str, int]:
        if (counts := parts.written(self._out, part)) is not None:
            return {**counts, "resumed": part.rows}
        read = parts.read(self._source.fs, part)
        tables = (rows.predicted(self._model, table, self._text, part.source) for table in read)
        return parts.write(self._out, part, tables, _counted)


def _counted(table: pa.Table) -> dict[str, int]:
    flags = {name: pc.sum(table[name]).as_py() or 0 for name in ("truncated", "out_of_distribution")}
    return {"rows": len(table), "errors": len(table) - table["error"].null_count, **flags}
