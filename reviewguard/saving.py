"""Save a model to a folder or the Hub; the written files are loaded again and compared first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from reviewguard import files, loading
from reviewguard.bundle import card, hub
from reviewguard.bundle.folder import Bundle, check_target, write_bundle
from reviewguard.bundle.manifest import ADAPTER, MANIFEST, read_manifest
from reviewguard.errors import BundleError, ConfigError, HubError
from reviewguard.inference.engines.select import is_export
from reviewguard.inference.model import TrainedModel

#: Memory alignment can change the last bits of a sum; a fault in saving changes logits far more.
_SAME_LOGITS: Final = 1e-5


def save(trained: TrainedModel, folder: Path) -> None:
    """Write a model to a folder. See `reviewguard.Classifier.save`."""
    if trained.manifest.merged is not None:
        check_target(folder, never=ADAPTER)
    write_bundle(folder, trained.manifest, trained.files, check=partial(_require_same, trained))


def push(
    trained: TrainedModel,
    repo_id: str,
    *,
    revision: str | None,
    private: bool | None,
    token: str | None,
    message: str,
    license: str | None,
    datasets: Sequence[str],
) -> str:
    """Upload a model to the Hub. See `reviewguard.Classifier.push_to_hub`."""
    if not hub.is_repo_id(repo_id):
        raise ConfigError(f"{repo_id!r} is not a Hub id; use the form owner/name")
    if not files.is_main_process():
        return ""
    model_card = card.published(trained.read("README.md").decode(), repo_id, license, datasets).encode()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        contents = {**trained.files, "README.md": model_card}
        write_bundle(folder, trained.manifest, contents, check=partial(_require_same, trained))
        stale = _listed(repo_id, revision, token) - {"README.md", *trained.files}
        return hub.push(folder, repo_id, revision=revision, private=private, token=token, message=message, delete=stale)


def _require_same(trained: TrainedModel, written: Bundle) -> None:
    if is_export(trained.files):
        return  # files are copied unchanged, and were verified at loading
    difference = trained.difference(loading.load(written))
    if not difference <= _SAME_LOGITS:
        raise BundleError(
            f"the model written to {written.folder} differs from the model in memory by {difference:.3g} in a logit; "
            "nothing was saved. Please report this"
        )


def _listed(repo: str, revision: str | None, token: str | None) -> set[str]:
    """Files of the model that the repository already contains; other files belong to the user and are kept."""
    try:
        folder = hub.fetch(repo, revision, HubError, only=[MANIFEST], token=token)
        return set(read_manifest(folder).files)
    except (HubError, BundleError):
        return set()  # no repository or no model yet; any other problem makes the upload fail
