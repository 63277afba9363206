"""Starting the runs of a comparison, each as a process of its own, until every one has ended.

A run is `wn-rl train` or `wn-rl resume` in a child process: a fault of memory, a kill or a leak in one run
touches no other, its signal handlers and torch threads are its own, and its folder, whose lock it holds, is
all that passes between it and the comparison. So any invocation of the same comparison, also a second one
beside the first, starts what no one is working on.

A launcher decides where the processes run: launch_local.py on this machine, launch_ray.py on a cluster.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Literal, Protocol

from wn_rl.errors import UserError
from wn_rl.launch_child import USER_ERROR, describe_end, prepare
from wn_rl.signals import stop_signals_to
from wn_rl.compare.grid import Found, Run, look

_POLL_SECONDS = 0.2

State = Literal["waiting", "busy", "running", "finished", "interrupted", "failed", "unreadable"]


@dataclass(frozen=True)
class Ended:
    """A run whose process is no more. message: what is known beyond its exit code, its folder and its log."""

    run: Run
    exit_code: int
    message: str = ""


class Launcher(Protocol):
    """Where runs are computed. A run that was started is in `ended` once, whatever happens to it."""

    def has_room(self) -> bool:
        """Whether another run can be started now."""
        ...

    def start(self, run: Run) -> None:
        """Start a run, or let it go on from where it was. OSError: it cannot be started."""
        ...

    def ended(self) -> Sequence[Ended]:
        """The runs that have ended since the last call."""
        ...

    def stop(self, *, at_once: bool) -> None:
        """Ask every run to save and end; or, at once, end it."""
        ...


@dataclass
class Entry:
    """A run of the comparison as it stands. failures: its attempts that failed in this invocation."""

    run: Run
    state: State
    message: str = ""
    failures: int = 0


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP, counted while listening: one asks to stop, a second to do it at once.

    Under nohup, a terminal that closes stops nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.number = 0  # of the last one

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Within: signals are counted instead of ending the process."""
        return stop_signals_to(self._receive)


def entries_of(runs: Sequence[Run]) -> list[Entry]:
    """The runs as they stand on disk.

    Raises:
        UserError: the folder of one holds a run with other settings.
    """
    return [Entry(run, _state_of(found), found.message) for run in runs for found in [look(run)]]


class Supervisor:
    """Starts what waits, retries what failed, and leaves the rest alone.

    retries: attempts after the first that failed, for each run. stop: its signals end all this.
    """

    def __init__(self, entries: Sequence[Entry], launcher: Launcher, *, retries: int, stop: StopSignals) -> None:
        self._launcher, self._retries, self._stop = launcher, retries, stop
        self._queue = deque(entry for entry in entries if entry.state == "waiting")
        self._running: dict[str, Entry] = {}
        self._stops_passed_on = 0

    def run(self, show: Callable[[], None]) -> None:
        """Until every run has ended, or a signal has ended those that were running.

        show: called at every look at them.
        """
        try:
            while self._running or (self._queue and not self._stop.count):
                if self._stop.count:
                    self._pass_on_the_stop()
                else:
                    self._start_what_can()
                for ended in self._launcher.ended():
                    self._settle(self._running.pop(ended.run.name), ended)
                show()
                time.sleep(_POLL_SECONDS)
        finally:
            if self._running:  # an error of our own: no run outlives the comparison
                self._launcher.stop(at_once=False)

    def _pass_on_the_stop(self) -> None:
        if self._stop.count > self._stops_passed_on:
            self._launcher.stop(at_once=self._stop.count > 1)
            self._stops_passed_on = self._stop.count

    def _start_what_can(self) -> None:
        for _ in range(len(self._queue)):
            if not self._launcher.has_room():
                return
            self._start(self._queue.popleft())

    def _start(self, entry: Entry) -> None:
        """Start a run, unless another invocation has finished it meanwhile or is working on it."""
        found = _look_again(entry.run)
        try:
            if found.state == "finished" or found.state == "unreadable":
                entry.state, entry.message = found.state, found.message
            elif not prepare(entry.run):
                self._requeue(entry, "busy", "another process works on it")
            else:
                self._launcher.start(entry.run)
                entry.state, entry.message = "running", ""
                self._running[entry.run.name] = entry
        except (OSError, UserError) as error:
            self._fail(entry, str(error), final=True)

    def _settle(self, entry: Entry, ended: Ended) -> None:
        """Decide what becomes of a run whose process has ended."""
        found = _look_again(entry.run)
        try:
            if found.state == "finished" or found.state == "unreadable":
                entry.state, entry.message = found.state, found.message
            elif self._stop.count:
                state: State = "interrupted" if found.state == "began" else "waiting"
                entry.state, entry.message = state, found.message
            elif ended.exit_code == USER_ERROR and not prepare(entry.run):
                self._requeue(entry, "busy", "another process works on it")
            else:
                message = ended.message or describe_end(entry.run, ended.exit_code)
                self._fail(entry, message, final=ended.exit_code == USER_ERROR)
        except (OSError, UserError) as error:
            self._fail(entry, str(error), final=True)

    def _fail(self, entry: Entry, message: str, *, final: bool) -> None:
        entry.failures += 1
        if final or entry.failures > self._retries:
            entry.state, entry.message = "failed", message
        else:
            self._requeue(entry, "waiting", f"failed, to be tried again: {message}")

    def _requeue(self, entry: Entry, state: State, message: str) -> None:
        entry.state, entry.message = state, message
        self._queue.append(entry)


def _state_of(found: Found) -> State:
    return "waiting" if found.state == "new" or found.state == "began" else found.state


def _look_again(run: Run) -> Found:
    """As `look`; that the settings became others meanwhile concerns this run alone."""
    try:
        return look(run)
    except UserError as error:
        return Found("unreadable", str(error))
