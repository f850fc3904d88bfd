"""Compute embeddings of a frozen encoder on Ray Data, and store them in the cache that training reads."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from reviewguard import config, files
from reviewguard.config import EncoderRecipe
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.tables import TEXT_COLUMNS, pick_column
from reviewguard.errors import ConfigError, requires
from reviewguard.scale import cluster, jobs, parts
from reviewguard.scale.parts import Part, Place
from reviewguard.scale.rows import values

with requires("train"):
    from reviewguard.training import backends
    from reviewguard.training.backends import _embed
    from reviewguard.training.backends._features import SHARD_ROWS, features


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `cache_features`.

    Attributes:
        rows: Number of input rows.
        errors: Rows without a usable text, which have no embedding.
        seconds: Wall time.
    """

    rows: int
    errors: int
    seconds: float


def cache_features(
    source: str | os.PathLike[str],
    preset: str | os.PathLike[str],
    *,
    actors: int | None = None,
    gpus: float = 0,
    part_rows: int = 10 * SHARD_ROWS,
    storage_options: dict[str, Any] | None = None,
    **overrides: Any,
) -> Cached:
    """Encode the texts of any amount of Parquet into the cache from which heads on a frozen encoder are trained.

    `Classifier(preset, **overrides).train` on the same texts then reads the embeddings from the cache. Cached embeddings are not
    computed again, so an interrupted job can be restarted. The cache folder is `$REVIEWGUARD_CACHE` of the calling process. On a
    cluster, it must be a folder that all nodes share.

    Args:
        source: Parquet file, folder of Parquet files, or glob pattern; a path or any URL supported by fsspec.
        preset: Preset with a frozen encoder, such as "stella-logreg", or the path of such a recipe.
        actors: Maximum number of actors, with one core each. None: the number of cores of the cluster.
        gpus: Number of GPUs of each actor.
        part_rows: Approximate number of rows per task.
        storage_options: Options for fsspec.
        **overrides: Settings that override the recipe. `encoder` and `data__normalization` affect embeddings; `data__text` is
            the name of the text column.

    Returns:
        Number of rows and errors, and the wall time.

    Raises:
        ConfigError: If the encoder is not frozen, or if a setting is invalid.
        DataError: If the input cannot be used, or if parts of it failed. All other parts are then complete.
    """
    recipe = backends.recipe_from(config.merge(config.load_preset(preset), overrides))
    if backends.get_backend(recipe.backend).logits is not _embed.logits:
        raise ConfigError(
            f"the preset {os.fspath(preset)!r} trains its encoder, so embeddings cannot be cached; use one with a frozen encoder"
        )
    place, started = Place.of(source, storage_options), time.perf_counter()
    with cluster.connected():
        arguments = (msgspec.to_builtins(recipe), place, str(files.cache_folder().resolve()))
        counts = jobs.run(parts.plan(place, part_rows), _Encoder, arguments, actors=actors, gpus=gpus, title="encoding")
    return Cached(rows=counts["rows"], errors=counts["errors"], seconds=time.perf_counter() - started)


class _Encoder(jobs.Worker):
    """An actor that encodes texts into the cache."""

    def __init__(self, settings: dict[str, Any], source: Place, cache: str) -> None:
        os.environ["REVIEWGUARD_CACHE"] = cache
        self._recipe, self._source = backends.recipe_from(settings), source
        assert isinstance(self._recipe, EncoderRecipe)
        self._loaded = _embed.load(self._recipe)

    def done(self, part: Part) -> dict[str, int]:
        normalize = NORMALIZERS[self._recipe.data.normalization]
        names = parts.columns(self._source.fs, part)
        column = pick_column(names, self._recipe.data.text, TEXT_COLUMNS, "text", part.source)
        column_values = [value for table in parts.read(self._source.fs, part, [column]) for value in values(table[column])]
        texts = [normalize(value) for value in column_values if isinstance(value, str)]
        if texts:
            features(self._loaded, texts)
        return {"rows": len(column_values), "errors": len(column_values) - len(texts)}
