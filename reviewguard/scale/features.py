"""Vectors of a frozen encoder, computed on Ray Data into the cache that training reads."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from reviewguard import config, files
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import TEXT_COLUMNS, pick_column
from reviewguard.errors import ConfigError, requires
from reviewguard.scale import cluster, jobs, parts
from reviewguard.scale.parts import Part, Place
from reviewguard.scale.rows import values

with requires("train"):
    from reviewguard.training import backends
    from reviewguard.training.backends import _embed
    from reviewguard.training.backends._features import SHARD_ROWS, features


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """What `cache_features` did.

    Attributes:
        rows: Rows of the input.
        errors: Of them, those without a usable text, which have no vector.
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
    """Encode the texts of any amount of Parquet into the cache that heads on a frozen encoder are trained from.

    `Classifier(preset, **overrides).train` on the same texts finds the vectors there, and encodes nothing. What the cache has
    already is not computed again, so a job that was killed is run again. The cache is `$REVIEWGUARD_CACHE`, as set where this is
    called: on a cluster, a folder that all nodes share.

    Args:
        source: A Parquet file, a folder of them, or a pattern; a path or any URL that fsspec knows.
        preset: One whose encoder stays frozen, such as "stella-logreg", or the path of such a recipe.
        actors: So many at most, of one core each; None: as many as the cluster has cores now.
        gpus: Of each actor; 0: none.
        part_rows: Rows that an actor takes at a time, about.
        storage_options: For fsspec.
        **overrides: Settings to change. What decides vectors: `encoder`, `data__normalization`; and `data__text`, the column.

    Raises:
        ConfigError: If the encoder does not stay frozen, or a setting is wrong.
        DataError: If the input cannot be used, or parts of it failed; all others are done then.
    """
    recipe = backends.recipe_from(config.merge(config.load_preset(preset), overrides))
    if backends.get_backend(recipe.backend).logits is not _embed.logits:
        raise ConfigError(
            f"the preset {os.fspath(preset)!r} trains its encoder, so there are no vectors to keep; take one that does not"
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
        self._loaded = backends.get_backend(self._recipe.backend).load(self._recipe)

    def done(self, part: Part) -> dict[str, int]:
        normalize = NORMALIZERS[self._recipe.data.normalization]
        names = parts.columns(self._source.fs, part)
        column = pick_column(names, self._recipe.data.text, TEXT_COLUMNS, "text", part.source)
        found = [value for table in parts.read(self._source.fs, part, [column]) for value in values(table[column])]
        texts = [normalize(value) for value in found if isinstance(value, str)]
        if texts:
            features(self._loaded, texts)
        return {"rows": len(found), "errors": len(found) - len(texts)}
