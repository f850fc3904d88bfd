"""From a model in memory to a folder or the Hub; what was written is loaded again and compared first."""

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

#: Where a tensor lies in memory can change the last bit of a sum; anything that saving lost changes a logit far more.
_SAME_LOGITS: Final = 1e-5


def save(trained: TrainedModel, folder: Path) -> None:
    """Write a model to a folder; see `reviewguard.Classifier.save`."""
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
    """Upload a model to the Hub; see `reviewguard.Classifier.push_to_hub`."""
    if not hub.is_repo_id(repo_id):
        raise ConfigError(f"{repo_id!r} is no Hub id; it has the form owner/name")
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
        return  # a copy of verified files
    difference = trained.difference(loading.load(written))
    if not difference <= _SAME_LOGITS:
        raise BundleError(
            f"the model that was written to {written.folder} differs from the one in memory by {difference:.3g} in a logit; "
            "nothing was saved. Please report this"
        )


def _listed(repo: str, revision: str | None, token: str | None) -> set[str]:
    """The files of the model that the repository already holds; other files belong to the user and stay."""
    try:
        folder = hub.fetch(repo, revision, HubError, only=[MANIFEST], token=token)
        return set(read_manifest(folder).files)
    except (HubError, BundleError):
        return set()  # no such repository yet, or no model in it; if it is something else, the upload will say so
