"""Predictions on Ray Data: of a dataset, or of Parquet with one part of output for each part of input."""

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

#: Rows of a part: minutes of one core, which is what a killed worker may have to do again.
PART_ROWS: Final = 20_000
#: In the folder of the output: what was begun there. Readers of Parquet pass over such a name.
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
    """Add predictions to a Ray dataset, lazily as all of Ray Data.

    Args:
        dataset: Of any columns, one of them of texts.
        model: Folder of an export, or its Hub id; None: the built-in model. It is loaded here once, then travels to the nodes.
        revision: See `reviewguard.Classifier.from_pretrained`, as for the three below.
        token: For a private repository.
        text: Column of the texts; empty: as in training.
        runtime: What computes.
        precision: Of the export.
        actors: So many at most, of one core each; None: as many as the cluster has cores now.

    Returns:
        The same rows and columns, and `predicted_label`, `predicted_score`, `decision`, `truncated`, `unfamiliar` and `error`,
        as `reviewguard predict` gives them.

    Raises:
        ConfigError: If the model is no export.
        DataError: While it is computed: if there is no column of texts, or one of those above is taken.
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

    Each part of the input, of whole row groups, becomes one file of the output, which is there whole or not at all. Run again
    after a kill, only parts are computed whose file is missing, or whose source has changed. Rows keep their order and columns.

    Args:
        source: A Parquet file, a folder of them, or a pattern; a path or any URL that fsspec knows, such as s3://.
        out: Folder or URL, for Parquet under the names of the sources; new, empty, or of the same job.
        model: As for `predict_dataset`, and so are the six below.
        revision: See there.
        token: See there.
        text: See there.
        runtime: See there.
        precision: See there.
        actors: See there.
        part_rows: Rows of a part, about; smaller parts lose less with a worker, larger ones make fewer files.
        storage_options: Of both places, for fsspec.

    Raises:
        ConfigError: If the model is no export.
        DataError: If the input cannot be used, the folder belongs to another job, or parts could not be read or written; all
            others are done then.
    """
    started = time.perf_counter()
    places = Place.of(source, storage_options), Place.of(out, storage_options)
    if f"{places[1].path}/".startswith(f"{places[0].path}/"):
        raise DataError(f"{places[1].path} lies in the input, of which it would become a part; choose a folder outside of it")
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
    """Put the record of a job into its folder, or find it there."""
    record = f"{out.path}/{RECORD}"
    with parts.translated(f"use {out.path} for the output"):
        out.fs.makedirs(out.path, exist_ok=True)
        there = [name.removeprefix(f"{out.path}/") for name in out.fs.find(out.path)]
        found = msgspec.json.decode(out.fs.cat_file(record), type=dict[str, str]) if RECORD in there else None
        if found is None and there:
            raise DataError(f"{out.path} holds what is no part of this job, such as {there[0]!r}; choose a new folder")
        if found is not None and found.get("job") != job:
            raise DataError(f"{out.path} was begun with another model, column of texts or size of parts; choose a new folder")
        if stale := sorted(name for name in there if name.endswith(".parquet") and name not in targets):
            raise DataError(f"{out.path} holds parts of files that are no longer in the input, such as {stale[0]!r}; remove them")
        for name in there:
            if name.endswith(".tmp"):  # of a worker that was killed
                out.fs.rm_file(f"{out.path}/{name}")
        if found is None:
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
