"""Exported agents on the Hugging Face hub, by the optional package huggingface_hub."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from wn_rl.errors import UserError, in_one_line


def require_repo_id(repo_id: str, or_else: str = "") -> None:
    """UserError unless the id has the form "owner/name" and the hub's characters. or_else: what else it may be."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo_id, re.ASCII):
        raise UserError(f"{repo_id} is not {or_else}the name of a repository on the hub (owner/name)")


@contextlib.contextmanager
def _hub(repo_id: str) -> Iterator[ModuleType]:
    """Context manager: the package, whose errors become one line about the repository."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HTTPError
    except ImportError:
        raise UserError('the hub needs one more package: pip install "wn-rl[hub]"') from None
    try:
        yield huggingface_hub
    # Its own errors are OSErrors, or ValueErrors on a name; those of the HTTP library below it are HTTPErrors.
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(f"the hub's repository {repo_id} is not available: {in_one_line(error)}") from None


def download(repo_id: str, files: list[str], revision: str | None) -> Path:
    """A local folder with these files of a repository, from the hub or from its cache.

    Raises:
        UserError: there is no such repository, or the hub is out of reach.
    """
    require_repo_id(repo_id, "a folder here, nor ")
    with _hub(repo_id) as hub:
        return Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=files))


def push(folder: Path, files: list[str], repo_id: str, *, private: bool) -> str:
    """Upload the named files of a folder to a repository, which is made if it does not exist; its address.

    Raises:
        UserError: the hub is out of reach or refuses, e.g. without a login (`hf auth login`).
    """
    require_repo_id(repo_id)
    with _hub(repo_id) as hub:
        api = hub.HfApi()
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=files, commit_message="Upload an agent"
        )
    return str(address)
