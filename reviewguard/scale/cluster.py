"""A Ray cluster, and a bundle that travels to each of its nodes once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ray
import ray.data

from reviewguard import files, loading
from reviewguard.bundle.folder import open_bundle
from reviewguard.bundle.manifest import MANIFEST
from reviewguard.errors import BundleError, ConfigError
from reviewguard.inference.engines.select import Engine, Precision, is_export
from reviewguard.inference.model import TrainedModel


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """The cluster that this process is connected to, or that RAY_ADDRESS names; else this machine, for as long as it lasts."""
    if ray.is_initialized():
        yield
        return
    ray.init(logging_level=logging.ERROR, include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it announces each execution
    try:
        yield
    finally:
        ray.shutdown()


def pool(count: int | None) -> ray.data.ActorPoolStrategy:
    """Actors of one core each: so many, or as many as the cluster has cores; fewer do until the others have their place."""
    most = count or max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    # Of partitions that take minutes, none should wait behind an actor while others have nothing to do.
    return ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=2)


class Shipped(NamedTuple):
    """An export on its way to the nodes.

    Attributes:
        contents: Files by name, in Ray's object store, which brings them to each node once.
        sha256: Of the manifest, which has the hashes of the others.
        runtime: See `Classifier.from_pretrained`.
        precision: The same.
    """

    contents: ray.ObjectRef[dict[str, bytes]]
    sha256: str
    runtime: Engine
    precision: Precision

    def load(self) -> TrainedModel:
        """The model, on one core of the node that this is called on."""
        # Of what is beside a model in a process of one core: the tokenizer would take all of them.
        os.environ["RAYON_NUM_THREADS"] = "1"
        folder = files.cache_folder() / "bundles" / self.sha256
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.exclusive(folder):
            if not _is_whole(folder):
                _put(folder, ray.get(self.contents))
        return loading.load(open_bundle(folder), self.runtime, self.precision, threads=1)


def ship(
    model: str | os.PathLike[str] | None, revision: str | None, token: str | None, runtime: Engine, precision: Precision
) -> tuple[TrainedModel, Shipped]:
    """Load an export here, which finds out what is wrong with it, and put its files into Ray's object store.

    So all nodes have the same one, whatever a branch of the Hub comes to meanwhile, and none of them needs the Hub or the folder.
    """
    bundle = loading.find(model, revision, token)
    if bundle is None or not is_export(bundle):
        raise ConfigError(f"actors predict from exports, and {str(model)!r} is none; run: reviewguard export MODEL --out FOLDER")
    trained = loading.load(bundle, runtime, precision)
    contents = {name: (bundle.folder / name).read_bytes() for name in (MANIFEST, *bundle.manifest.files)}
    return trained, Shipped(ray.put(contents), hashlib.sha256(contents[MANIFEST]).hexdigest(), runtime, precision)


def _is_whole(folder: Path) -> bool:
    try:
        open_bundle(folder)
    except BundleError:
        return False
    return True


def _put(folder: Path, contents: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    staging = folder.with_name(f"{uuid.uuid4().hex}.tmp")
    for name, content in contents.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        files.create(staging / name, content)
    staging.rename(folder)
