"""Start many runs, each as a process of its own, and watch them until every one has ended.

A run is `wn-rl train` or `wn-rl resume` in a child process, so that a crash, a kill or a leak in one run touches
no other. Its folder, whose lock it holds, is all that passes between it and the comparison: any invocation of the
same comparison, also a second one beside the first, starts what no process is working on.

A launcher decides where the processes run: `LocalLauncher` on this machine, `RayLauncher` on a cluster.
"""

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wn_rl.compare.grid import Entry, Run, State, flags_of, look, prepare, share_cores
from wn_rl.config import flat
from wn_rl.errors import UserError
from wn_rl.machine import num_cores, resolve_device
from wn_rl.run.files import last_line
from wn_rl.run.folder import RunFolder
from wn_rl.run.signals import StopRequest

POLL_SECONDS = 0.2
USER_ERROR = 2  # the exit code of a run that would fail again
# The settings that a resumed run takes from the present command: those that `wn-rl resume` has.
_RESUMABLE = (
    *("device", "accelerate", "torch_threads", "environment.processes"),
    *("track", "keep_replay", "checkpoint_period"),
)
_OF_ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME")  # variables that would make W&B take many runs for one
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Ended:
    """A run whose process has ended. message: what is known beyond its exit code, its folder and its log."""

    run: Run
    exit_code: int
    message: str = ""


class Launcher(Protocol):
    """Where runs are computed, `at_once` beside each other.

    start: begins a run or resumes it; OSError if that fails. ended: the runs that have ended since the last call;
    a run that was started is in it once, whatever happens. stop: asks every run to save and end, or kills it.
    """

    @property
    def at_once(self) -> int: ...
    def start(self, run: Run) -> None: ...
    def ended(self) -> Sequence[Ended]: ...
    def stop(self, *, at_once: bool) -> None: ...


def drop_replay(run: Run) -> None:
    """Free the disk of a run that nothing will lengthen, unless --keep-replay is given: many are large."""
    from wn_rl.run.checkpoint import CheckpointStore

    if not run.config.keep_replay:
        CheckpointStore(RunFolder(run.path).checkpoints, {}).drop_replay()


class Supervisor:
    """Starts what waits, retries what failed, and leaves the rest alone.

    retries: attempts after the first that failed, for each run. stop: a first signal asks the runs to save and
    end, a second one kills them.
    """

    def __init__(self, entries: Sequence[Entry], launcher: Launcher, *, retries: int, stop: StopRequest) -> None:
        self._launcher, self._retries, self._stop = launcher, retries, stop
        self._queue = deque(entry for entry in entries if entry.state == "waiting")
        self._running: dict[str, Entry] = {}
        self._stops_passed_on = 0

    def run(self, show: Callable[[], object]) -> None:
        """Return when every run has ended, or a signal has ended those that were running.

        show: called at every look at them.
        """
        try:
            while self._running or (self._queue and not self._stop):
                if self._stop.count > self._stops_passed_on:
                    self._launcher.stop(at_once=self._stop.count > 1)
                    self._stops_passed_on = self._stop.count
                elif not self._stop:
                    self._start_what_can()
                for ended in self._launcher.ended():
                    self._settle(self._running.pop(ended.run.name), ended)
                show()
                time.sleep(POLL_SECONDS)
        finally:
            if self._running:  # after an error of our own: no run outlives its supervisor
                self._launcher.stop(at_once=False)

    def _start_what_can(self) -> None:
        at_once = self._launcher.at_once
        for _ in range(len(self._queue)):  # once each: what is busy is put back
            if len(self._running) < at_once:
                self._start(self._queue.popleft())

    def _start(self, entry: Entry) -> None:
        """Start a run, unless another invocation has finished it meanwhile or is working on it."""
        try:
            if self._is_over(entry) or self._is_busy(entry):
                return
            self._launcher.start(entry.run)
            entry.state, entry.message = "running", ""
            self._running[entry.run.name] = entry
        except (OSError, UserError) as error:
            entry.state, entry.message = "failed", str(error)

    def _settle(self, entry: Entry, ended: Ended) -> None:
        """Decide what becomes of a run whose process has ended."""
        is_final = ended.exit_code == USER_ERROR
        try:
            if self._is_over(entry):
                drop_replay(entry.run)
                return
            if self._stop:
                entry.state = "interrupted" if RunFolder(entry.run.path).config_file.exists() else "waiting"
                return
            if is_final and self._is_busy(entry):  # the lock may have let another invocation in first
                return
            message = ended.message or _describe_end(entry.run, ended.exit_code)
        except (OSError, UserError) as error:
            is_final, message = True, str(error)
        entry.failures += 1
        if is_final or entry.failures > self._retries:
            entry.state, entry.message = "failed", message
        else:
            self._requeue(entry, "waiting", f"failed, to be tried again: {message}")

    def _is_over(self, entry: Entry) -> bool:
        """Whether its folder says that there is nothing to do; the entry then says so too."""
        found = look(entry.run)
        if found.state != "waiting":
            entry.state, entry.message = found.state, found.message
        return found.state != "waiting"

    def _is_busy(self, entry: Entry) -> bool:
        """Whether another process works on it; it then waits its turn again."""
        is_free = prepare(entry.run)
        if not is_free:
            self._requeue(entry, "busy", "another process works on it")
        return not is_free

    def _requeue(self, entry: Entry, state: State, message: str) -> None:
        entry.state, entry.message = state, message
        self._queue.append(entry)


@dataclass(frozen=True)
class Slot:
    """A place for one run.

    device: cpu or cuda. cores: threads for the emulators of the run. environment: variables added to those of
    this process.
    """

    device: str
    cores: int
    environment: Mapping[str, str] = field(default_factory=dict)


def start_child(run: Run, slot: Slot) -> "subprocess.Popen[bytes]":
    """Start or resume a run in a process of its own, which ends if this thread does.

    A terminal's Ctrl-C does not reach it: its parent tells it to stop.

    Raises:
        OSError: its log could not be written, or the process could not be started.
    """
    run.log.parent.mkdir(parents=True, exist_ok=True)
    of_all = {name: value for name, value in os.environ.items() if name not in _OF_ONE_RUN}
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "wn_rl.cli", *_arguments_of(run, slot)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"WANDB_JOB_TYPE": run.out.resolve().name, **of_all, **slot.environment},
            start_new_session=True,
            preexec_fn=_tied_to(os.getpid()),
        )


def _arguments_of(run: Run, slot: Slot) -> list[str]:
    config = dataclasses.replace(share_cores(run.config, slot.cores), device=slot.device)
    if not RunFolder(run.path).config_file.exists():
        return ["train", *flags_of(config), "--run-dir", str(run.path)]
    arguments = ["resume", str(run.path)]
    for name in _RESUMABLE:
        value = flat(config)[name]
        arguments += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return arguments


def _tied_to(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes the run: ask for SIGTERM at its parent's death, so that a run does not
    outlive its invocation beside the next one. Where the system cannot do so, the next invocation waits for it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(128 + signal.SIGTERM)

    return tie


def _describe_end(run: Run, exit_code: int) -> str:
    """Why a run ended before its last step: a signal, the last line that it printed, or its exit code."""
    if exit_code < 0:
        return f"it was killed by signal {-exit_code} ({signal.strsignal(-exit_code)})"
    return last_line(run.log) or f"exit code {exit_code}"


class LocalLauncher:
    """Child processes of this one, each in a slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.at_once, self._free = len(slots), list(slots)
        self._children: list[tuple[Run, Slot, subprocess.Popen[bytes]]] = []

    def start(self, run: Run) -> None:
        """Start a process in the first free slot."""
        process = start_child(run, self._free[0])
        self._children.append((run, self._free.pop(0), process))

    def ended(self) -> list[Ended]:
        """The runs whose processes have ended; their slots are free again."""
        over = [child for child in self._children if child[2].poll() is not None]
        self._children = [child for child in self._children if child not in over]
        self._free += [slot for _, slot, _ in over]
        return [Ended(run, process.returncode) for run, _, process in over]

    def stop(self, *, at_once: bool) -> None:
        """SIGTERM to each, at which a run saves; or SIGKILL, after which its last checkpoint is left."""
        for _, _, process in self._children:
            process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)


def local_slots(
    device: str, *, threads: int, workers: int | None = None, gpu_share: float | None = None
) -> list[Slot]:
    """The slots of this machine for runs with this number of torch threads. They share its cores evenly.

    workers: how many; None: one for each `threads` cores, and no more than the GPUs have room for. gpu_share: the
    part of a GPU that a run takes; None: all of it.

    Raises:
        UserError: the device is not available.
    """
    resolved, limit = resolve_device(device), workers or max(1, num_cores() // threads)
    if resolved.type == "cpu":
        if gpu_share is not None:
            raise UserError("--gpu-share needs a CUDA device, and the runs use the CPU")
        return [Slot("cpu", max(1, num_cores() // limit))] * limit
    gpus = [_visible_gpus()[resolved.index or 0]] if ":" in device else _visible_gpus()
    runs_per_gpu = int(1 / (gpu_share or 1.0) + 1e-9)  # 10 at a share of 0.1
    chosen = (gpus * runs_per_gpu)[:limit]
    return [Slot("cuda", max(1, num_cores() // len(chosen)), {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in chosen]


def _visible_gpus() -> list[str]:
    """The names of the CUDA devices that this process sees, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return names[:count] if names else [str(index) for index in range(count)]
