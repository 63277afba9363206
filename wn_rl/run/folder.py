"""The folder of a run: its name, its files, and the lock that lets one process at a time work in it."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wn_rl.config import Config, from_json, to_json
from wn_rl.errors import UserError, refusing
from wn_rl.presets import method_options
from wn_rl.registry import command_line, did_you_mean
from wn_rl.run.files import MAX_LINES, locked, parse_json, read_file, replace_file, require_form, sha256

Status = Literal["running", "finished", "interrupted", "failed"]

Row = dict[str, Any]
"""One line of metrics.jsonl; every row has its "step"."""

_LOCK_FILE = ".lock"
_DEBRIS = re.compile(r"\.[a-z_]+\.(json|safetensors)\.\d+\.tmp|\.step_\d+\.\d+\.mp4")  # of a killed process
_SESSION: dict[str, Any] = {"versions": {str: (str, type(None))}, "machine": str}
_RECORD = {"config": dict, "command": [str], "sessions": [{"step": int, **_SESSION}], **_SESSION}


def default_name(suite: str, game: str, parameterization: str, seed: int, parent: Path = Path("runs")) -> str:
    """A folder name that says when and what, e.g. 20261121-051300-atari-breakout-weight_norm-seed1.

    A number is added where parent has a folder of that name already.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    name = f"{moment}-{suite}-{file_name(game)}-{parameterization}-seed{seed}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(unique for unique in names if not (parent / unique).exists())


def arm_on_game(config: Config) -> str:
    """What runs have in common that differ in their seeds, e.g. minatar-breakout-weight_norm-lr0.0003."""
    options = (f"{name}-{value}" for name, value in method_options(to_json(config)).items())
    method = "-".join([config.parameterization, *options])
    return f"{config.suite}-{file_name(config.game)}-{method}-lr{config.learning_rate!r}"


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
        self.shown = path  # for messages
        self.path = path = path.absolute()  # an environment may change the working directory
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
                f"{self.shown} holds a run already: resume it with `{command_line('resume', str(self.shown))}`"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.shown} is a file: choose a new folder with --run-dir")
        names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        # A run that was killed before it began leaves a lock, and a part of its config, alone.
        if any(name != _LOCK_FILE and not _DEBRIS.fullmatch(name) for name in names):
            raise UserError(f"{self.shown} is not empty: choose a new folder with --run-dir")

    def require_own(self) -> None:
        """UserError if a part of the run is a link: what it leads to is not the run's to read or write."""
        for path in (*self.path.glob("*"), *self.checkpoints.glob("*")):
            if path.is_symlink():
                raise UserError(f"{path} is a link: put the file or folder itself in its place")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager: no other process can lock the folder, which is made if it does not exist.

        The system frees the lock when the process ends, however it ends. What a killed process left half written
        is removed.

        Raises:
            UserError: another process has it, or the folder could not be made or written.
        """
        self.require_own()
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / _LOCK_FILE))
            except BlockingIOError as error:
                owner = error.strerror or "unknown"
                raise UserError(f"{self.shown} is in use by another run (process {owner})") from error
            except OSError as error:
                failed = "written" if self.path.is_dir() else "made"
                raise UserError(f"the run folder {self.shown} could not be {failed}: {error.strerror}") from error
            for path in (*self.path.iterdir(), *self.videos.glob(".*")):
                if _DEBRIS.fullmatch(path.name):
                    path.unlink()
            yield

    def read_config(self) -> dict[str, Any]:
        """What config.json holds. UserError if it is damaged, or there is no run: then it lists the nearest."""
        try:
            data = read_file(self.config_file)
        except OSError as error:
            if os.path.lexists(self.config_file):
                raise UserError(f"{self.config_file} cannot be read: {error.strerror}") from None
            beside = {file.parent.name for file in self.path.parent.glob("*/config.json")}
            raise UserError(f"there is no run in {self.shown}{did_you_mean(self.path.name, beside)}") from error
        with refusing(f"{self.config_file} is damaged"):
            record: dict[str, Any] = parse_json(data)
            require_form(record, {name: form for name, form in _RECORD.items() if name in record})
            return record

    def read_settings(self) -> tuple[dict[str, Any], Config]:
        """What config.json holds, and the config in it. UserError or ValueError: see `open_run`."""
        record = self.read_config()
        if "config" not in record:
            raise UserError(f"{self.config_file} is not the config of a run")
        return record, from_json(record["config"])

    def write_status(self, status: Status, step: int, message: str = "") -> None:
        """Record how far the run is and how it ended, in status.json. OSError: the folder was removed, say."""
        self.path.stat()
        write_json(self.status_file, {"status": status, "step": step, "message": message})

    def read_status(self) -> RunStatus:
        """What status.json says; "not started" if there is no such file.

        Raises:
            UserError: the file is damaged.
            OSError: the file could not be read.
        """
        try:
            data = read_file(self.status_file)
        except FileNotFoundError:
            return RunStatus("not started", 0, "")
        with refusing("status.json is damaged"):
            found = parse_json(data)
            require_form(found, {"status": str, "step": int, "message": str})
            if found["status"] not in get_args(Status):
                raise ValueError(f"{found['status']!r} is no status")
            return RunStatus(found["status"], found["step"], found["message"])

    def require_unchanged(self, settings: Mapping[str, Any]) -> None:
        """UserError if the newest checkpoint is of other settings (names with dots) or other rows of metrics."""
        for file in sorted(self.checkpoints.glob("step_*/manifest.json"), reverse=True):
            with contextlib.suppress(Exception):  # of a damaged one the one before is compared
                manifest, state = parse_json(read_file(file)), read_file(file.with_name("state.json"))
                if manifest["files"]["state.json"] == sha256(state):
                    record, saved = parse_json(state)["tracker"]["jsonl"], dict(manifest["identity"])
                    break
        else:
            return
        pairs = [(name, saved[name], settings[name]) for name in sorted(saved.keys() & settings.keys())]
        if differing := [f"{name} is {other!r}, not {own!r}" for name, other, own in pairs if other != own]:
            raise UserError(f"the checkpoint {file.parent} is of another run: {'; '.join(differing)}")
        digest_of_rows(self.metrics_file, record)

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
            whole = read_file(self.metrics_file, MAX_LINES).split(b"\n")[:-1]
        except OSError as error:
            raise UserError(f"{self.shown} has no metrics: {error.strerror}") from None
        with refusing("metrics.jsonl is damaged"):
            rows = [parse_json(line) for line in whole]
            require_form(rows, [{"step": int}], "line")
            return rows


def digest_of_rows(path: Path, record: Any) -> Any:
    """The digest, to be continued, of the rows that a checkpoint counts on. UserError: the file has others."""
    require_form(record, {"offset": int, "pending": [str]}, "the checkpoint's record of metrics")
    offset = max(0, record["offset"])
    data = read_file(path, MAX_LINES)[:offset] if path.exists() else b""
    digest = hashlib.sha256(data)
    if len(data) < offset or record.get("sha256", digest.hexdigest()) != digest.hexdigest():
        raise UserError(f"{path} lacks rows that it had at the checkpoint, or has others: put the file back")
    return digest


def open_run(path: str | Path) -> tuple[RunFolder, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it.

    Raises:
        UserError: there is no run, a part of it is a link, or its config.json is damaged or of something else.
        ValueError: the config is invalid.
    """
    folder = RunFolder(Path(path))
    folder.require_own()
    return folder, *folder.read_settings()
