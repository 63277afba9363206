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
from wn_rl.run.files import opened
from wn_rl.run.folder import RunFolder
from wn_rl.run.sinks import CLOCK_KEYS, Row, RunInfo

INIT_SECONDS = 20.0  # W&B takes about ten more to say that its server is out of reach
FINISH_SECONDS = 30.0
EXIT_SECONDS = 10.0  # for W&B's own process to end when ours does
PROJECT = "wn-rl"
_MAX_TAG = 64  # characters: W&B refuses a run with a longer one
_LOCAL = ("offline", "dryrun", "disabled")  # modes without a server


def new_wandb_state(info: RunInfo) -> dict[str, Any]:
    """An id, so that the first checkpoint has it, however long W&B takes to start: that of a session before."""
    ids = [run_id for _, run_id in sessions_of(info.run_dir)]
    return {"id": [os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4), *ids][-1]}


class WandbSink:
    """Weights & Biases: online if W&B finds a key, else in the run's folder, to be synced later.

    The step is a metric of its own, which the others are drawn over: W&B drops rows whose built-in step goes back,
    as that of a resumed run may. An offline run cannot be resumed: it continues in a second folder with the same
    id, and syncing uploads the folders in order. It first sends the rows that W&B lost when the process before was
    killed, and sends no row again that is the same but for the clock.

    state: "id", that of the W&B run. "offline": for a finished run, whether to keep from W&B's server.
    """

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        if not os.path.isdir(os.path.expanduser("~")):  # W&B needs a home; a container's user may have none
            os.environ["HOME"] = str(info.run_dir.resolve() / "wandb" / "home")
        import wandb

        self._wandb: Any = wandb
        self._info = info
        self._num_rows = 0
        self._taken = set[int]()  # the rows that W&B has, of this session and those before
        self._run = self._start(state)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        if not self._run.offline and self._run.url:  # an offline run warns of a question for its address
            info.report(f"wandb: {self._run.url}")
        self._continue(state)

    def log(self, row: Row) -> None:
        """Send a row that W&B does not have. Missing values are left out."""
        if (content := _content(row)) not in self._taken:
            self._run.log(_finite(row))
            self._taken.add(content)
            self._num_rows += 1

    def video(self, step: int, name: str, path: Path) -> None:
        """Send an mp4 file; the row of that step is sent on its own."""
        self._run.log({"step": step, f"video/{name}": self._wandb.Video(str(path), format="mp4")})

    def close(self, exit_code: int) -> None:
        """Finish, with the best network if the run is over; say how to upload what is only here, if all is."""
        folder = Path(self._run.settings.sync_dir)
        report, sync = self._info.report, shlex.join(["wandb", "sync", str(folder)])
        best = RunFolder(self._info.run_dir).best_network
        try:
            if exit_code == 0 and best.exists():
                self._run.log_artifact(best, name=f"network-{self._run.id}", type="model", aliases=["best"])
        except Exception as error:
            report(f"warning: wandb did not take {best}: {in_one_line(error)}")
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            report(f"warning: wandb did not take everything in time; upload it with: {sync}")
            return
        if self._run.offline:
            rows, sent = rows_in(folder), self._num_rows
            if rows is not None and len(rows) < sent:
                report(f"warning: wandb kept {len(rows)} of {sent} rows (a full disk?); metrics.jsonl has all")
            report(f"wandb: the run is kept offline; upload it with: {sync}")

    def _continue(self, state: dict[str, Any]) -> None:
        """Start from what earlier sessions of the run left, and send the rows that they lost.

        A row that an online session wrote to its folder, but the server lacks, is lost too: W&B numbers the rows.
        """
        own = Path(self._run.settings.sync_dir)
        sessions = sessions_of(self._info.run_dir)
        before = [folder for folder, run_id in sessions if run_id == state["id"] and folder != own]
        rows = RunFolder(self._info.run_dir).read_rows() if before or "step" in state else []
        self._run.summary.update({name: value for row in rows for name, value in _finite(row).items()})
        if "offline" in state:
            return
        for folder in before:
            is_whole = self._run.offline or folder.name.startswith("offline")  # or will be, once it is synced
            found = [row for row in rows_in(folder) or [] if is_whole or row["_step"] < self._run.starting_step]
            self._taken.update(map(_content, found))
        for row in rows:
            self.log(row)

    def _start(self, state: dict[str, Any]) -> Any:
        """The W&B run: offline if no key is configured or the server is out of reach."""
        report = self._info.report
        _start_service(self._wandb)
        try:
            mode = wandb_mode()
            if mode is None:
                report("wandb: no key is configured (see `wandb login`): the run is logged offline in its folder")
            elif not state.get("offline") or mode == "disabled":
                return self._init(state["id"], mode)
        except Exception as error:
            report(f"warning: wandb is out of reach, logging offline instead: {in_one_line(error)}")
            self._wandb.teardown()  # frees the id, which the failed run still holds
            _start_service(self._wandb)
        return self._init(state["id"], "offline")

    def _init(self, run_id: str, mode: str) -> Any:
        """Begin the W&B run. What its environment variables and settings files say comes before what we say."""
        info, given = self._info, self._wandb.setup().settings
        return self._wandb.init(
            project=given.project or PROJECT,
            id=run_id,
            resume=None if mode in _LOCAL else "allow",
            name=given.run_name or info.run_name,
            group=given.run_group or info.group,
            tags=list(dict.fromkeys(tag[:_MAX_TAG] for tag in (*(given.run_tags or ()), *info.tags) if tag)),
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


def _start_service(wandb: Any) -> None:
    """Start W&B's own process, so that, dead or hanging, it neither prints a traceback at our exit nor delays it.

    Call it before anything may fail: W&B's own end at our exit prints the errors of a dead process.
    """
    wandb.setup()
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


def _service_process(wandb: Any) -> "subprocess.Popen[bytes] | None":
    """W&B's own process, or None: there is no public handle. Without one, a hanging process outlives ours."""
    try:
        process: subprocess.Popen[bytes] = wandb.setup()._connection._proc._process
    except AttributeError:
        return None
    return process


def rows_in(folder: Path) -> list[dict[str, Any]] | None:
    """The rows in the folder of a session; None if W&B's reader cannot tell. W&B says nothing of a full disk."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    try:
        for file in folder.glob("*.wandb"):
            with opened(file):  # no link, which the reader would follow, and no pipe, which it would wait for
                pass
        output = subprocess.run(command, capture_output=True, timeout=FINISH_SECONDS, check=True).stdout
        records = [json.loads(line) for line in output.splitlines()]
        return [record["history"]["item"] for record in records if record["type"] == "history"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def _content(row: Row) -> int:
    """A number for what a row says, whenever it says so."""
    said = _finite({name: row[name] for name in row if not name.startswith("_") and name not in CLOCK_KEYS})
    return hash(frozenset(said.items()))


def _finite(row: Row) -> dict[str, float]:
    """The values of a row that W&B can draw."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}


def sessions_of(run_dir: Path) -> list[tuple[Path, str]]:
    """The folders of a run's sessions in W&B, the oldest first, each with its W&B run's id; links are left out."""
    folders = (run_dir / "wandb").glob("*run-*_*-*")  # offline-run-20261121_051300-ID, or run-20261121_051300-ID
    moments = sorted((it.name.partition("run-")[2], it) for it in folders if not it.is_symlink())
    return [(folder, moment.partition("-")[2]) for moment, folder in moments]


def sync_command(runs: Path) -> str | None:
    """The shell command that uploads the offline sessions of all runs in a folder; None if no run has one."""
    pattern = "*/wandb/offline-run-*"
    return f"wandb sync {shlex.quote(str(runs))}/{pattern}" if any(runs.glob(pattern)) else None


def wandb_mode() -> str | None:
    """W&B's mode by its own settings; None: online, but it finds no key. Exception: of W&B, on what it refuses."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode in _LOCAL:
        return str(settings.mode)
    try:
        from wandb.sdk.lib import wbauth

        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        key = wbauth.authenticate_session(host=host, source=PROJECT, prompt=False, update_session=False)
    except (ImportError, AttributeError, TypeError):  # of another version: the public way, which prints
        key = wandb.login(prompt=False, verify=False)
    return str(settings.mode) if key else None
