"""Download from and upload to the Hugging Face Hub, through huggingface_hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from reviewguard.errors import HubError, ReviewGuardError

_REPO_ID: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_repo_id(name: str) -> bool:
    """Whether a name has the form `owner/name` of a Hub repository."""
    return _REPO_ID.fullmatch(name) is not None


def fetch(
    repo: str,
    revision: str | None,
    error: type[ReviewGuardError],
    *,
    only: Sequence[str] | None = None,
    token: str | None = None,
) -> Path:
    """Fetch a repository, or find it in the cache. HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME are respected.

    Args:
        repo: Hub id, `owner/name`.
        revision: Commit, branch or tag; None: the main branch.
        error: Type of the error to raise.
        only: Patterns of the required files; None: all files.
        token: Access token with read permission; None: HF_TOKEN, or the token of `hf auth login`.

    Returns:
        The local folder, named after the commit.

    Raises:
        ReviewGuardError: If the repository can be neither fetched nor found in the cache; of the given type.
    """
    import huggingface_hub
    from huggingface_hub import constants

    patterns = list(only) if only else None
    # Some client versions, such as 1.31, access the network even when offline if another version filled the cache.
    offline = constants.HF_HUB_OFFLINE
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=patterns, token=token, local_files_only=offline
            )
        )
    except Exception as cause:  # the client's errors and those of its HTTP library share no base class
        raise error(
            f"cannot fetch {repo} (revision {revision or 'main'}) from the Hugging Face Hub: {type(cause).__name__}: "
            f"{str(cause).strip().partition(chr(10))[0]}. "
            "Check the name and the network, or pass a local folder"
        ) from cause


def push(
    folder: Path,
    repo: str,
    *,
    revision: str | None,
    private: bool | None,
    token: str | None,
    message: str,
    delete: Iterable[str] = (),
) -> str:
    """Upload a folder as one atomic commit; repository and branch are created if needed.

    Args:
        folder: Folder to upload.
        repo: Hub id, `owner/name`.
        revision: Branch; None: main.
        private: Whether a newly created repository is private; None: the default of its owner.
        token: Access token with write permission; None: HF_TOKEN, or the token of `hf auth login`.
        message: Commit message.
        delete: Names of files to delete from the repository.

    Returns:
        The id of the commit.

    Raises:
        HubError: If the upload fails; existing files are then unchanged.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        patterns = [glob.escape(name) for name in delete]
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message=message, delete_patterns=patterns
        )
    except Exception as cause:  # as above
        raise HubError(
            f"cannot upload to {repo} on the Hugging Face Hub: {type(cause).__name__}: {cause}. Existing files are unchanged. "
            "Check the name, the network, and that you are logged in with write permission (run: hf auth login)"
        ) from cause
    return str(commit.oid)
