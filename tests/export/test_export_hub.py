"""The hub: what would be uploaded, what is, and what is asked for; no test needs a network."""

import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError
from made_agents import small_agent
from run_tools import wn_rl

from wn_rl.errors import UserError
from wn_rl.export import export, load_exported

FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported agent, and a file beside it that is not part of it."""
    export(small_agent(), tmp_path / "agent", onnx=False)
    (tmp_path / "agent" / "secret.txt").write_text("mine")
    return tmp_path / "agent"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hub's own class, recording calls: it refuses arguments that the real one does not take."""
    recorder = create_autospec(huggingface_hub.HfApi, instance=True)
    recorder.create_repo.return_value = "https://huggingface.co/me/agent"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: recorder)
    return recorder


def test_a_dry_run_lists_the_files_and_sends_none(
    folder: Path, api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl("push", str(folder), "--repo-id", "me/agent", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "would upload to me/agent:"
    assert [line.split()[-1] for line in lines[1:]] == FILES
    assert f"{(folder / 'config.json').stat().st_size:,} bytes" in lines[2]
    assert api.mock_calls == []


def test_a_push_sends_the_agents_files_alone(folder: Path, api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("push", str(folder), "--repo-id", "me/agent", "--private") == 0
    api.create_repo.assert_called_once_with("me/agent", private=True, exist_ok=True)
    (upload,) = api.upload_folder.call_args_list
    assert (upload.kwargs["repo_id"], upload.kwargs["folder_path"]) == ("me/agent", folder)
    assert upload.kwargs["allow_patterns"] == FILES
    assert "https://huggingface.co/me/agent" in capsys.readouterr().out


def test_what_is_not_an_agent_is_refused_in_one_line_and_nothing_is_sent(
    folder: Path, api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")
    for arguments, message in [
        ((str(folder), "--repo-id", "me/agent"), "is damaged"),
        ((str(folder / "nothing"), "--repo-id", "me/agent"), "no exported agent"),
        ((str(folder), "--repo-id", "agent"), "agent is not the name of a repository on the hub (owner/name)"),
        ((str(folder), "--repo-id", "me/a b"), "is not the name of a repository"),
        ((str(folder),), "--repo-id"),
    ]:
        assert wn_rl("push", *arguments) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
    assert api.mock_calls == []


def test_a_hub_that_refuses_is_one_line(folder: Path, api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for refusal in (OSError("no\nroute"), PermissionError("log in"), HTTPError("no name service")):
        api.create_repo.side_effect = refusal
        assert wn_rl("push", str(folder), "--repo-id", "me/agent") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert issubclass(HfHubHTTPError, OSError)
    assert issubclass(LocalEntryNotFoundError, OSError)


def test_an_agent_is_loaded_from_the_hub_by_its_two_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "snapshot"  # of links, as the hub's package makes it
    cache.mkdir()
    for name in FILES[1:]:
        (cache / name).symlink_to(folder / name)
    download = create_autospec(huggingface_hub.snapshot_download, return_value=str(cache))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_exported("me/agent", revision="v1").name == "a small network"
    download.assert_called_once_with("me/agent", revision="v1", allow_patterns=FILES[1:])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, Path("me") / "agent")
    load_exported("me/agent")  # a folder comes before the hub
    download.assert_called_once()


def test_what_is_neither_here_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    neither = "is not a folder here, nor the name of a repository"
    names = {"me/agent": "the hub's repository me/agent is not available", "me/a--b": "is not available"}
    for name in ("agent", tmp_path / "agent", "./agent", "me/a b"):
        names[str(name)] = neither
    for name, message in names.items():
        with pytest.raises(UserError, match=message) as refusal:
            load_exported(name)
        assert "\n" not in str(refusal.value)


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(UserError, match=r'pip install "wn-rl\[hub\]"'):
        load_exported("me/agent")
