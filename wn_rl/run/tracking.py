"""Where a run's metrics go. metrics.jsonl is the record; the other sinks can never stop or slow the run.

A row is a flat dict with "step" and some of what docs/metrics.md lists. A missing value is None.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from wn_rl.errors import UserError
from wn_rl.registry import TRACKERS
from wn_rl.run.console import ConsoleSink
from wn_rl.run.files import opened, write_all
from wn_rl.run.folder import digest_of_rows
from wn_rl.run.guard import GuardedTracker
from wn_rl.run.sinks import Report, Row, RunInfo, Sink, TensorBoardSink
from wn_rl.run.wandb_sink import WandbSink, new_wandb_state


class Tracker(Sink, Protocol):
    """A sink that a resumed run continues. `load_state_dict`, if it is called, comes before anything else."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue the same record: plain data, for the checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; without this call, the record starts anew."""


class JsonlTracker:
    """One JSON object per line, written at once, on the disk before each checkpoint.

    A resumed run cuts the file back to where its checkpoint was. Rows that a full disk has no room for are kept in
    memory, and in the checkpoint, until there is room.
    """

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._offset = 0  # bytes of whole rows in the file
        self._digest = hashlib.sha256()  # of these
        self._pending: list[str] = []

    def log(self, row: Row) -> None:
        """Append a row, keys in the order given. NaN and infinity are written as null."""
        infinite = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        had_pending = bool(self._pending)
        self._pending.append(json.dumps({**row, **dict.fromkeys(infinite)}) + "\n")
        self._write_pending(quietly=had_pending)

    def video(self, step: int, name: str, path: Path) -> None:
        """Nothing: the file is in the run's folder."""

    def state_dict(self) -> dict[str, Any]:
        """Put the rows on the disk; their bytes and digest, and the rows that are not written yet.

        Raises:
            UserError: rows that were written are gone.
        """
        self._write_pending(quietly=True)
        with contextlib.suppress(OSError), opened(self._path) as descriptor:
            os.fsync(descriptor)
        if self._offset and (not self._path.exists() or self._path.stat().st_size < self._offset):
            raise UserError(f"{self._path} was removed or cut while the run went on")
        return {"offset": self._offset, "pending": list(self._pending), "sha256": self._digest.hexdigest()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the file back to where it was. UserError: rows are lost or changed."""
        self._digest = digest_of_rows(self._path, state)
        self._offset, self._pending = state["offset"], list(state["pending"])
        with contextlib.suppress(FileNotFoundError), opened(self._path, os.O_WRONLY) as descriptor:
            os.ftruncate(descriptor, self._offset)

    def close(self, exit_code: int) -> None:
        """Write what is left."""
        self._write_pending(quietly=True)
        if self._pending:
            self._report(f"{self._path} lacks the last {len(self._pending)} rows: the disk is full")

    def _write_pending(self, *, quietly: bool) -> None:
        data = "".join(self._pending).encode()
        if not data:
            return
        try:
            if not self._offset:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            with opened(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
                if os.fstat(descriptor).st_size < self._offset:
                    raise FileNotFoundError("its rows are gone")
                os.ftruncate(descriptor, self._offset)  # a part of a row, from a write that failed
                write_all(descriptor, data)
        except OSError as error:
            if not quietly:
                reason = error.strerror or error
                self._report(f"warning: {self._path} could not be written ({reason}); its rows are kept in memory")
            return
        self._offset += len(data)
        self._digest.update(data)
        self._pending.clear()


class Trackers:
    """Several trackers as one. Each finds its own state by its name."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self._trackers = trackers

    def log(self, row: Row) -> None:
        """Record one row in each."""
        for tracker in self._trackers.values():
            tracker.log(row)

    def video(self, step: int, name: str, path: Path) -> None:
        """Record a finished mp4 file in each."""
        for tracker in self._trackers.values():
            tracker.video(step, name, path)

    def state_dict(self) -> dict[str, Any]:
        """The states by name."""
        return {name: tracker.state_dict() for name, tracker in self._trackers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; a tracker that is not in it starts anew."""
        for name in self._trackers.keys() & state.keys():
            self._trackers[name].load_state_dict(state[name])

    def close(self, exit_code: int) -> None:
        """Finish each."""
        for tracker in self._trackers.values():
            tracker.close(exit_code)


def _guarded(
    name: str,
    make_sink: Callable[[RunInfo, dict[str, Any]], Sink],
    new_state: Callable[[RunInfo], dict[str, Any]] = lambda info: {},
) -> Callable[[RunInfo], Tracker]:
    return lambda info: GuardedTracker(name, lambda state: make_sink(info, state), new_state(info), info.report)


def jsonl_tracker(info: RunInfo) -> Tracker:
    """The record of the run: metrics.jsonl in its folder."""
    return JsonlTracker(info.run_dir / "metrics.jsonl", info.report)


def console_tracker(info: RunInfo) -> Tracker:
    """What a terminal shows, from the start."""
    tracker = GuardedTracker("console", lambda state: ConsoleSink(info, state), {}, info.report)
    tracker.open()
    return tracker


wandb_tracker = _guarded("wandb", WandbSink, new_wandb_state)
tensorboard_tracker = _guarded("tensorboard", TensorBoardSink)


def make_trackers(names: Iterable[str], info: RunInfo) -> Trackers:
    """The named trackers as one; jsonl is always among them, and first. UnknownNameError: a name is unknown."""
    return Trackers({name: TRACKERS[name](info) for name in dict.fromkeys(["jsonl", *names])})
