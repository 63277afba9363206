"""The hub: what would be uploaded, what is, and what is asked for; no test needs a network."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError
from torch import nn

from wn_rl import cli
from wn_rl.errors import UserError
from wn_rl.export import Agent, export, load_exported
from wn_rl.export import hub as hub_module
from wn_rl.nn import Preprocess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported agent, and a file beside it that is not part of it."""
    network = nn.Sequential(Preprocess((4,), 1, 1.0), nn.Linear(4, 2)).eval()
    export(Agent(network, "float32", ("LEFT", "RIGHT"), "a small network", {}), tmp_path / "agent", onnx=False)
    (tmp_path / "agent" / "secret.txt").write_text("mine")
    return tmp_path / "agent"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hub's own class, recording calls: it refuses arguments that the real one does not take."""
    recorder = create_autospec(huggingface_hub.HfApi, instance=True)
    recorder.create_repo.return_value = "https://huggingface.co/me/agent"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: recorder)
    return recorder


def push(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["push", *arguments])
    return int(stop.value.code or 0)


def test_a_dry_run_lists_the_files_and_sends_none(
    folder: Path, api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(str(folder), "--repo-id", "me/agent", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "would upload to me/agent:"
    assert [line.split()[-1] for line in lines[1:]] == ["README.md", "config.json", "model.safetensors"]
    assert f"{(folder / 'config.json').stat().st_size:,} bytes" in lines[2]
    assert api.mock_calls == []


def test_a_push_sends_the_agents_files_alone(folder: Path, api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(str(folder), "--repo-id", "me/agent", "--private") == 0
    api.create_repo.assert_called_once_with("me/agent", private=True, exist_ok=True)
    (upload,) = api.upload_folder.call_args_list
    assert upload.kwargs["repo_id"] == "me/agent"
    assert upload.kwargs["folder_path"] == folder
    assert upload.kwargs["allow_patterns"] == ["README.md", "config.json", "model.safetensors"]
    assert "https://huggingface.co/me/agent" in capsys.readouterr().out


def test_what_cannot_be_pushed_is_one_line_and_nothing_is_sent(
    folder: Path, api: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")
    for arguments, message in [
        ((str(folder), "--repo-id", "me/agent"), "is damaged"),
        ((str(folder / "nothing"), "--repo-id", "me/agent"), "no exported agent"),
        ((str(folder), "--repo-id", "agent"), "form owner/name"),
        ((str(folder), "--repo-id", "me/a b"), "Repo id must"),
        ((str(folder),), "--repo-id"),
    ]:
        assert push(*arguments) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
    assert api.mock_calls == []


def test_a_hub_that_refuses_is_one_line(folder: Path, api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for refusal in (OSError("no\nroute"), PermissionError("log in"), HTTPError("no name service")):
        api.create_repo.side_effect = refusal
        assert push(str(folder), "--repo-id", "me/agent") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert issubclass(HfHubHTTPError, OSError)
    assert issubclass(LocalEntryNotFoundError, OSError)


def test_an_agent_is_loaded_from_the_hub_by_its_two_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = create_autospec(huggingface_hub.snapshot_download, return_value=str(folder))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    agent = load_exported("me/agent", revision="v1")
    download.assert_called_once_with(
        "me/agent", revision="v1", allow_patterns=["config.json", "model.safetensors"]
    )
    states = torch.randn(3, 1, 4)
    torch.testing.assert_close(agent.network(states), load_exported(folder).network(states))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, Path("me") / "agent")
    load_exported("me/agent")  # a folder comes before the hub
    download.assert_called_once()


def test_what_is_neither_here_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name, message in [
        ("me/agent", "is no folder here, and not to be had from the hub"),
        ("agent", "neither a folder nor the name of a repository"),
        (tmp_path / "agent", "neither a folder nor"),
        ("./agent", "neither a folder nor"),
        ("me/a b", "Repo id must"),
    ]:
        with pytest.raises(UserError, match=message) as refusal:
            load_exported(name)
        assert "\n" not in str(refusal.value)


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(hub_module.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r'pip install "wn-rl\[hub\]"'):
        load_exported("me/agent")
