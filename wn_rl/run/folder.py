"""The folder of a run: its name, its files, and the lock that lets one process at a time work in it."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wn_rl.config import Config, from_json
from wn_rl.errors import UserError
from wn_rl.registry import command_line, did_you_mean
from wn_rl.run.files import replace_file

Status = Literal["running", "finished", "interrupted", "failed"]

Row = dict[str, Any]
"""One line of metrics.jsonl; every row has its "step"."""

_LOCK_FILE = ".lock"


def default_name(suite: str, game: str, parameterization: str, seed: int, parent: Path = Path("runs")) -> str:
    """A folder name that says when and what, e.g. 20261121-051300-atari-breakout-weight_norm-seed1.

    A number is added where parent has a folder of that name already.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    name = f"{moment}-{suite}-{file_name(game)}-{parameterization}-seed{seed}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(unique for unique in names if not (parent / unique).exists())


def file_name(text: str) -> str:
    """A text as a part of a file's name: unusual characters become a dash.

    >>> file_name("module:Own/Catch-v0")
    'module-Own-Catch-v0'
    """
    return re.sub(r"[^\w.-]+", "-", text)


def write_json(path: Path, value: Any) -> None:
    """Put a JSON file in place at once; its folder is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class RunStatus:
    """How far a run is and how it ended. status: a `Status`, or "not started"."""

    status: str
    step: int
    message: str


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
        """UserError if the folder is not empty; for a run, the message says how to resume it."""
        if self.config_file.exists():
            raise UserError(
                f"{self.path} holds a run already: resume it with `{command_line('resume', str(self.path))}`"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose a new folder with --run-dir")
        # A run that was killed before it began leaves a lock alone.
        if self.path.is_dir() and any(entry.name != _LOCK_FILE for entry in self.path.iterdir()):
            raise UserError(f"{self.path} is not empty: choose a new folder with --run-dir")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager: no other process can lock the folder, which is made if it does not exist.

        The system frees the lock when the process ends, however it ends.

        Raises:
            UserError: another process has it, or the folder could not be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK_FILE).open("a+", errors="replace")
        except OSError as error:
            failed = "written" if self.path.is_dir() else "made"
            raise UserError(f"the run folder {self.path} could not be {failed}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read(32).strip() or "unknown"
                raise UserError(f"{self.path} is in use by another run (process {owner})") from error
            file.truncate(0)
            print(os.getpid(), file=file, flush=True)
            yield

    def read_config(self) -> dict[str, Any]:
        """What config.json holds. UserError if it is damaged, or there is no run: then it lists the nearest."""
        try:
            config = json.loads(self.config_file.read_bytes())
        except OSError as error:
            beside = {file.parent.name for file in self.path.parent.glob("*/config.json")}
            raise UserError(f"there is no run in {self.path}{did_you_mean(self.path.name, beside)}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.config_file} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"{self.config_file} is damaged: it is not a JSON object")
        return config

    def write_status(self, status: Status, step: int, message: str = "") -> None:
        """Record how far the run is and how it ended, in status.json."""
        write_json(self.status_file, {"status": status, "step": step, "message": message})

    def read_status(self) -> RunStatus:
        """What status.json says; "not started" if there is no such file.

        Raises:
            UserError: the file is damaged.
            OSError: the file could not be read.
        """
        try:
            found = json.loads(self.status_file.read_bytes())
            return RunStatus(str(found["status"]), int(found["step"]), str(found["message"]))
        except FileNotFoundError:
            return RunStatus("not started", 0, "")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"status.json is damaged: {error}") from error

    def is_finished(self) -> bool:
        """Whether status.json says that the run reached its last step."""
        try:
            return self.read_status().status == "finished"
        except (OSError, UserError):
            return False

    def read_rows(self) -> list[Row]:
        """The whole rows of metrics.jsonl; a run may be writing another.

        Raises:
            UserError: there are no metrics, or they are damaged.
        """
        try:
            whole = self.metrics_file.read_text().split("\n")[:-1]
            rows = [json.loads(line) for line in whole]
        except OSError as error:
            raise UserError(f"{self.path} has no metrics: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"metrics.jsonl is damaged: {error}") from error
        if any(not isinstance(row, dict) or not isinstance(row.get("step"), int) for row in rows):
            raise UserError("metrics.jsonl is damaged: it has a row without a step")
        return rows


def open_run(path: str | Path) -> tuple[RunFolder, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it.

    Raises:
        UserError: there is no run, or its config.json is damaged or of something else.
        ValueError: the config is invalid.
    """
    folder = RunFolder(Path(path))
    record = folder.read_config()
    if "config" not in record:
        raise UserError(f"{folder.config_file} is not the config of a run")
    return folder, record, from_json(record["config"])
