"""Weights & Biases as one of the places that show a run."""

import atexit
import contextlib
import json
import math
import netrc
import os
import secrets
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wn_rl.errors import in_one_line
from wn_rl.run.sinks import Row, RunInfo

INIT_SECONDS = 20.0  # W&B takes about ten more to say that its server is out of reach
FINISH_SECONDS = 30.0
EXIT_SECONDS = 10.0  # for W&B's own process to end, when ours does
PROJECT = "wn-rl"
_MAX_TAG = 64  # characters: W&B refuses a run with a longer one


def new_wandb_state() -> dict[str, Any]:
    """An id of our own, so that the first checkpoint has it, however long W&B takes to begin."""
    return {"id": secrets.token_hex(4)}


class WandbSink:
    """Weights & Biases: online where a key is configured, else in the run's folder, to be synced later.

    The step is a metric of its own, which the others are drawn over: W&B drops rows whose built-in step goes
    back, and a resumed run's may. Offline runs cannot be resumed: a second folder with the same id follows,
    and syncing uploads them in order.
    """

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        import wandb

        self._wandb: Any = wandb
        self._info = info
        self._run = self._start(state["id"])
        _bound_the_exit(wandb)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._folder = Path(self._run.settings.sync_dir)
        self._rows = 0
        if not self._run.settings._offline:  # else there is none, and asking for it warns
            info.report(f"wandb: {self._run.url}")

    def log(self, row: Row) -> None:
        """Send a row. Missing values are left out."""
        self._run.log({key: value for key, value in row.items() if _is_shown(value)})
        self._rows += 1

    def video(self, step: int, name: str, path: Path) -> None:
        """Send an mp4 file; the row of that step goes on its own."""
        self._run.log({"step": step, f"video/{name}": self._wandb.Video(str(path), format="mp4")})
        self._rows += 1

    def close(self, exit_code: int) -> None:
        """Finish; say how to upload what is only here, and whether all of it is here."""
        offline = bool(self._run.settings._offline)
        sync = shlex.join(["wandb", "sync", str(self._folder)])
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            self._info.report(f"warning: wandb did not take everything in time; upload it with: {sync}")
            return
        if offline:
            rows = count_offline_rows(self._folder)
            if rows is not None and rows < self._rows:
                self._info.report(
                    f"warning: wandb kept {rows} of {self._rows} rows (a full disk?); metrics.jsonl has all"
                )
            self._info.report(f"wandb: {self._rows} rows are kept offline; upload them with: {sync}")

    def _start(self, run_id: str) -> Any:
        settings = self._wandb.setup().settings
        mode = settings.mode
        if mode == "online" and not wandb_key_configured(settings.base_url):
            self._info.report(
                "wandb: no key is configured, so the run is logged offline in its folder (see `wandb login`)"
            )
            mode = "offline"
        if mode == "online":
            try:
                return self._init(run_id, mode)
            except Exception as error:
                reason = in_one_line(error)
                self._info.report(f"warning: wandb is out of reach, logging offline instead: {reason}")
                mode = "offline"
                self._wandb.teardown()  # frees the id, which the failed run still holds
        return self._init(run_id, mode)

    def _init(self, run_id: str, mode: str) -> Any:
        info = self._info
        settings = self._wandb.Settings(
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            console="off",
            silent=True,
        )
        return self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            resume="allow" if mode == "online" else None,
            name=info.run_name,
            group=info.group,
            tags=[tag[:_MAX_TAG] for tag in info.tags],
            config=info.config,
            dir=str(info.run_dir),
            mode=mode,
            settings=settings,
        )


def _bound_the_exit(wandb: Any) -> None:
    """See that W&B's process, dead or hanging, neither prints a traceback when ours exits nor keeps it."""
    process = None
    with contextlib.suppress(AttributeError):  # there is no public handle
        process = wandb.setup().ensure_service()._proc._process
    exiting, done = threading.Event(), threading.Event()

    def watch() -> None:
        exiting.wait()
        if not done.wait(EXIT_SECONDS) and process is not None:
            process.kill()

    def end() -> None:
        exiting.set()
        with contextlib.suppress(Exception, SystemExit):  # SystemExit: its process was killed
            wandb.teardown()
        done.set()

    # Started now: a thread cannot be started any more when the interpreter exits.
    threading.Thread(target=watch, name="wandb-exit", daemon=True).start()
    atexit.register(end)  # after W&B's own, so it runs before it, and takes its place


def _is_shown(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def count_offline_rows(folder: Path) -> int | None:
    """Rows in an offline W&B run's folder; None if its own reader cannot say."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    try:
        output = subprocess.run(command, capture_output=True, timeout=FINISH_SECONDS, check=True).stdout
        records = [json.loads(line) for line in output.splitlines()]
        return len([record for record in records if record["type"] == "history"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def wandb_key_configured(base_url: str | None = None) -> bool:
    """Whether W&B could log in to its server: by environment or by the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(base_url or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    choices = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for choice in choices:
        path = Path(choice).expanduser() if choice else None
        if path is not None and path.is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except (OSError, netrc.NetrcParseError):
                return False
    return False
