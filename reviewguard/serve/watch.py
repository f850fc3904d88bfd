"""Replacing the champion without a gap, when its folder changes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from reviewguard.bundle.manifest import MANIFEST
from reviewguard.errors import ReviewGuardError
from reviewguard.serve.arms import Arms
from reviewguard.serve.local import LocalArm
from reviewguard.serve.served import load
from reviewguard.serve.settings import Settings

log = logging.getLogger("reviewguard.serve")


class State(Protocol):
    """What the application holds."""

    arms: Arms


async def watch(state: State, settings: Settings) -> None:
    """Load the model again whenever its folder has another manifest. Runs until it is cancelled.

    The new model is loaded, verified and warmed up beside the old one. Requests that have arrived are answered by the model that
    was current then. A model that cannot be loaded, or has other classes, leaves the old one in place.
    """
    assert settings.model is not None
    manifest = Path(settings.model) / MANIFEST
    seen = _version(manifest)
    while True:
        await asyncio.sleep(settings.watch_seconds)
        found = _version(manifest)
        if found is None or found == seen:
            continue
        seen, metrics = found, state.arms.metrics
        try:
            served, trained = await asyncio.to_thread(load, settings.model, settings.name, settings)
        except (ReviewGuardError, OSError) as error:
            log.error("the changed model in %s was not loaded: %s", settings.model, error)  # noqa: TRY400 - the message says it all
            metrics.swaps.labels("failed").inc()
            continue
        old = state.arms.champion
        assert isinstance(old, LocalArm)
        if served.classes != old.served.classes:
            log.error("the changed model in %s has other classes, and was not put in place", settings.model)
            metrics.swaps.labels("failed").inc()
        elif served.sha256 != old.served.sha256:
            state.arms = replace(state.arms, champion=replace(old, served=served, trained=trained))
            log.info("replaced the model %s by %s", old.served.sha256[:12], served.sha256[:12])
            metrics.swaps.labels("done").inc()


def _version(manifest: Path) -> tuple[int, int, int] | None:
    """Identifies the manifest's file; None while the folder is being replaced."""
    try:
        status = manifest.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
