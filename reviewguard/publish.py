"""From a trained model to a repository on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from reviewguard import card, files, hub
from reviewguard.bundle import MANIFEST, Bundle, read_manifest, write_bundle
from reviewguard.errors import BundleError, ConfigError, HubError
from reviewguard.fitted import Fitted


def push(
    fitted: Fitted,
    repo: str,
    *,
    revision: str | None,
    private: bool | None,
    token: str | None,
    message: str,
    license: str | None,
    datasets: Sequence[str],
    check: Callable[[Bundle], None],
) -> str:
    """Upload a model; see `reviewguard.Classifier.push_to_hub`."""
    if not hub.is_repo_id(repo):
        raise ConfigError(f"{repo!r} is no Hub id; it has the form owner/name")
    if not files.is_main_process():
        return ""
    about = card.published(fitted.read("README.md").decode(), repo, license, datasets).encode()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_bundle(folder, fitted.manifest, {**fitted.files, "README.md": about}, check)
        stale = _listed(repo, revision, token) - {"README.md", *fitted.files}
        return hub.push(folder, repo, revision=revision, private=private, token=token, message=message, delete=stale)


def _listed(repo: str, revision: str | None, token: str | None) -> set[str]:
    """The files of the model that is there already; other files are somebody's, and stay."""
    try:
        folder = hub.fetch(repo, revision, HubError, only=[MANIFEST], token=token)
        return set(read_manifest(folder).files)
    except (HubError, BundleError):
        return set()  # no such repository yet, or no model in it; if it is something else, the upload will say so
