"""The process of one run, wherever it is started: its command line, and how it ends with its parent."""

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from wn_rl.errors import UserError
from wn_rl.files import last_line
from wn_rl.runs import RunFolder
from wn_rl.compare.grid import Run, clear_debris, flags_of

USER_ERROR = 2  # the exit code of what cannot be mended by trying again

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def prepare(run: Run) -> bool:
    """Whether no process works in the run's folder. If so, what a killed start left there is removed.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        with RunFolder(run.path).lock():
            clear_debris(run)
    except UserError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return False
        raise
    return True


def start(run: Run, device: str, cores: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a run, or let it go on, in a process of its own that ends if this one does.

    A terminal's Ctrl-C does not reach it: its parent tells it to stop. cores: the run's share of them, for the
    threads of its emulators. environment: added to ours.

    Raises:
        OSError: its log cannot be written, or no process be made.
    """
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "wn_rl.cli", *_arguments_of(run, device, cores)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_tied_to(os.getpid()),
        )


def describe_end(run: Run, exit_code: int) -> str:
    """Why a run ended before its last step: the last line that it printed, or else its exit code."""
    if exit_code < 0:
        return f"it was killed by signal {-exit_code} ({signal.strsignal(-exit_code)})"
    return last_line(run.log) or f"exit code {exit_code}"


def _arguments_of(run: Run, device: str, cores: int) -> list[str]:
    environment = run.config.environment
    if run.config.suite == "atari" and environment.emulator_threads == 0:
        environment = dataclasses.replace(environment, emulator_threads=cores)
    config = dataclasses.replace(run.config, device=device, environment=environment)
    if RunFolder(run.path).config_file.exists():
        may_differ = {  # from what the run began with
            "--device": device,
            "--torch-threads": config.torch_threads,
            "--environment.emulator-threads": environment.emulator_threads,
            "--keep-replay": config.keep_replay,
            "--checkpoint-period": config.checkpoint_period,
        }
        flags = [word for flag, value in may_differ.items() for word in (flag, str(value))]
        return ["resume", str(run.path), *flags, "--track", *config.track]
    return ["train", *flags_of(config), "--run-dir", str(run.path)]


def _tied_to(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes the run: ask for SIGTERM at its parent's death, so that a run does
    not live on beside the next invocation. Where the system has no such thing, the next one waits for it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(128 + signal.SIGTERM)

    return tie
