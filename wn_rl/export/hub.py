"""Exported agents on the Hugging Face hub, by the optional package huggingface_hub."""

import importlib
from pathlib import Path
from types import ModuleType

from wn_rl.errors import UserError, in_one_line


def _hub(module: str = "huggingface_hub") -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError('the hub needs one more package: pip install "wn-rl[hub]"') from None


def _errors_of_the_hub() -> tuple[type[Exception], ...]:
    """Its own are OSErrors; those of the HTTP library below it, which come through, are not."""
    return OSError, _hub("huggingface_hub.errors").HTTPError


def check_repo_id(repo_id: str) -> None:
    """UserError unless the id has the form "owner/name" and the hub's characters."""
    try:
        _hub("huggingface_hub.utils").validate_repo_id(repo_id)
    except ValueError as error:
        raise UserError(in_one_line(error)) from None
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} is not the name of a repository: it has the form owner/name")


def download(repo_id: str, files: list[str], revision: str | None) -> Path:
    """A local folder with these files of a repository, from the hub or from its cache.

    Raises:
        UserError: there is no such folder here nor such a repository, or the hub cannot be reached.
    """
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/")):
        raise UserError(f"{repo_id} is neither a folder nor the name of a repository, owner/name")
    check_repo_id(repo_id)
    try:
        return Path(_hub().snapshot_download(repo_id, revision=revision, allow_patterns=files))
    except _errors_of_the_hub() as error:
        raise UserError(
            f"{repo_id} is no folder here, and not to be had from the hub: {in_one_line(error)}"
        ) from None


def push(folder: Path, files: list[str], repo_id: str, *, private: bool) -> str:
    """Upload the named files of a folder to a repository, made if need be; returns its address.

    Raises:
        UserError: the hub cannot be reached or refuses, e.g. without a login (`hf auth login`).
    """
    check_repo_id(repo_id)
    api = _hub().HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=files, commit_message="Upload an agent"
        )
    except _errors_of_the_hub() as error:
        raise UserError(f"nothing more is uploaded to {repo_id}: {in_one_line(error)}") from None
    return str(address)
