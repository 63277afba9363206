"""Where a run's metrics go. metrics.jsonl is the record; the other sinks can never stop or slow the run.

A row is a flat dict with "step" and some of what docs/metrics.md lists. A value that is missing is None.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wn_rl.errors import UserError, say
from wn_rl.registry import TRACKERS
from wn_rl.run.files import write_all
from wn_rl.run.guard import GuardedTracker
from wn_rl.run.sinks import ConsoleSink, Row, RunInfo, Sink, TensorBoardSink
from wn_rl.run.wandb_sink import WandbSink, new_wandb_state

CLOCK_KEYS = ("frames_per_second", "seconds")  # these measure time, and differ between equal runs

Report = Callable[[str], None]


class Tracker(Sink, Protocol):
    """A sink that a resumed run continues. `load_state_dict`, if it is called, comes before anything else."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue the same record: plain data, for the checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; without this call, the record begins anew."""
        ...


class JsonlTracker:
    """One JSON object a line, written at once, on the disk before each checkpoint.

    A resumed run cuts the file back to where its checkpoint was. Rows for which a full disk has no room are kept
    in memory, and in the checkpoint, until there is room.
    """

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._descriptor: int | None = None
        self._offset = 0  # bytes of whole rows in the file
        self._pending: list[str] = []

    def log(self, row: Row) -> None:
        """Append a row, keys in the order given. NaN and infinity are written as null."""
        infinite = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        had_pending = bool(self._pending)
        self._pending.append(json.dumps({**row, **dict.fromkeys(infinite)}) + "\n")
        self._write_pending(quietly=had_pending)

    def video(self, step: int, name: str, path: Path) -> None:
        """Nothing: the file is in the run's folder already."""

    def state_dict(self) -> dict[str, Any]:
        """Make the disk hold the rows; their bytes, and those not written yet."""
        self._write_pending(quietly=True)
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
        return {"offset": self._offset, "pending": list(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the file back to where it was.

        Raises:
            UserError: the file is shorter than that, so rows are lost.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < state["offset"]:
            raise UserError(
                f"{self._path} has {size:,} bytes, and had {state['offset']:,} at the checkpoint: rows are lost; "
                "put the file back to resume this run"
            )
        self._offset = state["offset"]
        self._pending = list(state["pending"])
        self._open()

    def close(self, exit_code: int) -> None:
        """Write what is left and close the file."""
        self.state_dict()
        if self._pending:
            self._report(f"{self._path} lacks the last {len(self._pending)} rows: the disk is full")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.ftruncate(self._descriptor, self._offset)
        return self._descriptor

    def _write_pending(self, *, quietly: bool) -> None:
        data = "".join(self._pending).encode()
        if not data:
            return
        try:
            descriptor = self._open()
            os.lseek(descriptor, self._offset, os.SEEK_SET)
            os.ftruncate(descriptor, self._offset)  # a part of a row, from a write that failed
            write_all(descriptor, data)
        except OSError as error:
            if not quietly:
                reason = error.strerror or error
                self._report(f"warning: {self._path} could not be written ({reason}); its rows are kept in memory")
            return
        self._offset += len(data)
        self._pending.clear()


class Trackers:
    """Several trackers as one. Each finds its own state by its name."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

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
        """Go on; a tracker that the state does not know begins anew."""
        for name, tracker in self._trackers.items():
            if name in state:
                tracker.load_state_dict(state[name])

    def close(self, exit_code: int) -> None:
        """Finish each."""
        for tracker in self._trackers.values():
            tracker.close(exit_code)


def _guarded(
    name: str,
    make_sink: Callable[[RunInfo, dict[str, Any]], Sink],
    new_state: Callable[[], dict[str, Any]] = dict,
) -> Callable[[RunInfo], Tracker]:
    return lambda info: GuardedTracker(name, lambda state: make_sink(info, state), new_state(), info.report)


def jsonl_tracker(info: RunInfo) -> Tracker:
    """The record of the run: metrics.jsonl in its folder."""
    return JsonlTracker(info.run_dir / "metrics.jsonl", info.report)


console_tracker = _guarded("console", ConsoleSink)
wandb_tracker = _guarded("wandb", WandbSink, new_wandb_state)
tensorboard_tracker = _guarded("tensorboard", TensorBoardSink)


def make_trackers(
    names: Sequence[str],
    *,
    run_dir: Path,
    config: Mapping[str, Any],
    run_name: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    total_steps: int | None = None,
    report: Report = say,
) -> Trackers:
    """The named trackers as one; jsonl is always among them, and first.

    config: plain JSON values. total_steps: for the time that is left. report: see RunInfo.

    Raises:
        UnknownNameError: a name is unknown.
    """
    info = RunInfo(run_dir, dict(config), run_name, group, tuple(tags), total_steps, report)
    return Trackers({name: TRACKERS[name](info) for name in dict.fromkeys(["jsonl", *names])})
