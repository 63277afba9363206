"""Weights & Biases as one of the places that show a run."""

import atexit
import contextlib
import json
import math
import os
import secrets
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from wn_rl.errors import in_one_line
from wn_rl.run.sinks import Row, RunInfo

INIT_SECONDS = 20.0  # W&B takes about ten more to say that its server is out of reach
FINISH_SECONDS = 30.0
EXIT_SECONDS = 10.0  # for W&B's own process to end when ours does
PROJECT = "wn-rl"
_MAX_TAG = 64  # characters: W&B refuses a run with a longer one


def new_wandb_state() -> dict[str, Any]:
    """An id of our own, so that the first checkpoint has it, however long W&B takes to start."""
    return {"id": secrets.token_hex(4)}


class WandbSink:
    """Weights & Biases: online if a key is configured, else in the run's folder, to be synced later.

    The step is a metric of its own, which the others are drawn over: W&B drops rows whose built-in step goes back,
    as that of a resumed run may. An offline run cannot be resumed: it continues in a second folder with the same
    id, and syncing uploads the folders in order.
    """

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        if not os.path.isdir(os.path.expanduser("~")):  # W&B needs a home; a container's user may have none
            os.environ["HOME"] = str(info.run_dir.resolve() / "wandb" / "home")
        import wandb

        self._wandb: Any = wandb
        self._info = info
        self._num_rows = 0
        self._run = self._start(state["id"])
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        if not self._run.offline:  # an offline run warns of a question for its address
            info.report(f"wandb: {self._run.url}")

    def log(self, row: Row) -> None:
        """Send a row. Missing values are left out."""
        self._run.log({key: value for key, value in row.items() if value is not None and math.isfinite(value)})
        self._num_rows += 1

    def video(self, step: int, name: str, path: Path) -> None:
        """Send an mp4 file; the row of that step is sent on its own."""
        self._run.log({"step": step, f"video/{name}": self._wandb.Video(str(path), format="mp4")})

    def close(self, exit_code: int) -> None:
        """Finish; say how to upload what is only here, and whether all of it is here."""
        folder = Path(self._run.settings.sync_dir)
        report, sync = self._info.report, shlex.join(["wandb", "sync", str(folder)])
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            report(f"warning: wandb did not take everything in time; upload it with: {sync}")
            return
        if self._run.offline:
            rows = count_offline_rows(folder)
            if rows is not None and rows < self._num_rows:
                report(
                    f"warning: wandb kept {rows} of {self._num_rows} rows (a full disk?); metrics.jsonl has all"
                )
            report(f"wandb: the run is kept offline; upload it with: {sync}")

    def _start(self, run_id: str) -> Any:
        """The W&B run: offline if no key is configured or the server is out of reach."""
        settings, report = _start_service(self._wandb), self._info.report
        if settings.mode != "online":
            return self._init(run_id, settings.mode)
        if not wandb_key_configured(settings.base_url):
            report("wandb: no key is configured, so the run is logged offline in its folder (see `wandb login`)")
            return self._init(run_id, "offline")
        try:
            return self._init(run_id, "online")
        except Exception as error:
            report(f"warning: wandb is out of reach, logging offline instead: {in_one_line(error)}")
        self._wandb.teardown()  # frees the id, which the failed run still holds
        _start_service(self._wandb)
        return self._init(run_id, "offline")

    def _init(self, run_id: str, mode: str) -> Any:
        info = self._info
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
            settings=self._wandb.Settings(
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                console="off",
                silent=True,
            ),
        )


def _start_service(wandb: Any) -> Any:
    """Start W&B's own process, so that, dead or hanging, it neither prints a traceback at our exit nor delays it.

    Call it before anything may fail: W&B's own end at our exit prints the errors of a dead process.
    Returns W&B's settings.
    """
    settings = wandb.setup().settings
    process = _service_process(wandb)
    exiting, ended = threading.Event(), threading.Event()

    def end() -> None:
        exiting.wait()
        with contextlib.suppress(BaseException):  # W&B exits if its process was killed
            wandb.teardown()
        ended.set()

    def end_in_time() -> None:
        exiting.set()
        if not ended.wait(EXIT_SECONDS) and process is not None:
            process.kill()

    threading.Thread(target=end, name="wandb-exit", daemon=True).start()  # at exit, no thread can be started
    atexit.register(end_in_time)  # after W&B's own, so it runs before it, and takes its place
    return settings


def _service_process(wandb: Any) -> "subprocess.Popen[bytes] | None":
    """W&B's own process, or None: there is no public handle. Without one, a hanging process outlives ours."""
    try:
        process: subprocess.Popen[bytes] = wandb.setup()._connection._proc._process
    except AttributeError:
        return None
    return process


def count_offline_rows(folder: Path) -> int | None:
    """Rows in an offline W&B run's folder; None if its own reader cannot tell. W&B says nothing of a full disk."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    try:
        output = subprocess.run(command, capture_output=True, timeout=FINISH_SECONDS, check=True).stdout
        return [json.loads(line)["type"] for line in output.splitlines()].count("history")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def wandb_key_configured(base_url: str | None = None) -> bool:
    """Whether W&B could log in to its server: by environment or by the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    from requests.utils import get_netrc_auth  # installed with W&B, which uses it

    return get_netrc_auth(base_url or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai") is not None
