"""The folder of a run: its name, its files, and the lock that lets one process at a time work in it."""

import contextlib
import difflib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from wn_rl.config import Config, from_json
from wn_rl.errors import UserError
from wn_rl.registry import command_line
from wn_rl.run.files import replace_file, write_all

Status = Literal["running", "finished", "interrupted", "failed"]

_LOCK_FILE = ".lock"


def default_name(suite: str, game: str, parameterization: str, seed: int, parent: Path = Path("runs")) -> str:
    """A folder name that says when and what, e.g. 20261121-051300-atari-breakout-weight_norm-seed1.

    A number is added where parent has a folder of that name already.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    name = f"{moment}-{suite}-{file_name(game)}-{parameterization}-seed{seed}"
    number = 1
    unique = name
    while (parent / unique).exists():
        number += 1
        unique = f"{name}-{number}"
    return unique


def file_name(text: str) -> str:
    """A text as a part of a file's name: what no name of a game here has becomes a dash.

    >>> file_name("module:Own/Catch-v0")
    'module-Own-Catch-v0'
    """
    return re.sub(r"[^\w.-]+", "-", text)


def write_json(path: Path, value: Any) -> None:
    """Put a JSON file in place at once, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class RunFolder:
    """Where everything of one run lies. Making the object touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.status_file = path / "status.json"
        self.best_network = path / "best_network.safetensors"
        self.checkpoints = path / "checkpoints"
        self.videos = path / "videos"

    def require_new(self) -> None:
        """Refuse a folder that has something in it.

        Raises:
            UserError: it does; for a run, the message says how to resume it.
        """
        if self.config_file.exists():
            raise UserError(
                f"{self.path} holds a run already: go on with it by `{command_line('resume', str(self.path))}`"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose a new folder with --run-dir")
        # A lock alone is left where a run was killed before it began.
        if self.path.is_dir() and any(entry.name != _LOCK_FILE for entry in self.path.iterdir()):
            raise UserError(f"{self.path} is not empty: choose a new folder with --run-dir")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Within: no other process can lock the folder, which is made if need be. The system frees the lock
        when the process ends, however it ends.

        Raises:
            UserError: another process has it, or the folder cannot be made.
        """
        descriptor = self._open_lock()
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise UserError(f"{self.path} is in use by another run (process {owner})") from error
            os.ftruncate(descriptor, 0)
            write_all(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            cannot = "cannot be written" if self.path.is_dir() else "cannot be made"
            raise UserError(f"the run folder {self.path} {cannot}: {error.strerror}") from error

    def read_config(self) -> dict[str, Any]:
        """What config.json holds.

        Raises:
            UserError: there is no run here; the nearest names beside it are listed. Or the file is damaged.
        """
        try:
            config = json.loads(self.config_file.read_bytes())
        except OSError as error:
            raise UserError(f"there is no run in {self.path}{self._nearest()}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.config_file} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"{self.config_file} is damaged: it is not a JSON object")
        return config

    def _nearest(self) -> str:
        with contextlib.suppress(OSError):
            runs = [file.parent.name for file in self.path.parent.glob("*/config.json")]
            near = difflib.get_close_matches(self.path.name, runs)
            if near:
                return f"; there is {', '.join(str(self.path.parent / name) for name in near)}"
        return ""

    def write_status(self, status: Status, step: int, message: str = "") -> None:
        """Record how far the run is and how it ended, in status.json."""
        write_json(self.status_file, {"status": status, "step": step, "message": message})

    def is_finished(self) -> bool:
        """Whether status.json says that the run reached its last step."""
        try:
            return bool(json.loads(self.status_file.read_bytes())["status"] == "finished")
        except (OSError, ValueError, KeyError, TypeError):
            return False


def open_run(path: str | Path) -> tuple[RunFolder, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it.

    Raises:
        UserError: there is no run, or its config.json is damaged or of something else.
        ValueError: the config cannot be.
    """
    folder = RunFolder(Path(path))
    record = folder.read_config()
    if "config" not in record:
        raise UserError(f"{folder.config_file} is not the config of a run")
    return folder, record, from_json(record["config"])
