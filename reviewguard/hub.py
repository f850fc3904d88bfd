"""Fetching from the Hugging Face Hub, through huggingface_hub alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reviewguard.errors import ReviewGuardError

_REPO_ID: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_repo_id(name: str) -> bool:
    """Whether a name has the form `owner/name` of a Hub repository."""
    return _REPO_ID.fullmatch(name) is not None


def fetch(repo: str, revision: str | None, error: type[ReviewGuardError], *, only: Sequence[str] | None = None) -> Path:
    """Fetch a repository, or find it in the cache; HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME are honoured.

    Args:
        repo: Hub id, `owner/name`.
        revision: Commit, branch or tag; None: the main branch.
        error: What to raise.
        only: Patterns of the files needed; None: all.

    Returns:
        The local folder.

    Raises:
        ReviewGuardError: Of the given type, if it can be neither fetched nor found in the cache.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(only) if only else None))
    except Exception as cause:  # the client's errors and those of its HTTP library share no base class
        raise error(
            f"cannot get {repo} (revision {revision or 'main'}) from the Hugging Face Hub: {type(cause).__name__}: {cause}. "
            "Check the name and the network, or pass a local folder"
        ) from cause
