"""Connect to a Ray cluster, and distribute a bundle to each of its nodes once."""

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
    """Use the connected cluster or the one named by RAY_ADDRESS; otherwise start Ray on this machine for the duration."""
    if ray.is_initialized():
        yield
        return
    ray.init(logging_level=logging.ERROR, include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs each execution
    try:
        yield
    finally:
        ray.shutdown()


def pool(count: int | None) -> ray.data.ActorPoolStrategy:
    """A pool of single-core actors: `count`, or as many as there are cores. Work starts with the first ready actor."""
    most = count or max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    # Parts take minutes: none should queue for a busy actor while another is idle.
    return ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=2)


class Shipped(NamedTuple):
    """An export to be loaded on the nodes.

    Attributes:
        contents: Contents of the files by name, in Ray's object store, which transfers them to each node once.
        sha256: SHA-256 of the manifest, which contains the hashes of the other files.
        runtime: See `Classifier.from_pretrained`.
        precision: See `Classifier.from_pretrained`.
    """

    contents: ray.ObjectRef[dict[str, bytes]]
    sha256: str
    runtime: Engine
    precision: Precision

    def load(self) -> TrainedModel:
        """Load the model on one core of the current node."""
        # The actor has one core, but the tokenizer would use all cores of the node.
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
    """Load an export locally, which detects invalid models, and put its files into Ray's object store.

    All nodes then use the same files even if a branch on the Hub changes, and none of them needs access to the Hub or the folder.
    """
    bundle = loading.find(model, revision, token)
    if bundle is None or not is_export(bundle):
        raise ConfigError(
            f"prediction on Ray requires an export, and {str(model)!r} is not one; run: reviewguard export MODEL --out FOLDER"
        )
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
