"""Where a run's metrics go: its own metrics.jsonl always, and sinks that can never stop it.

A run logs training rows, which have "loss", and test rows, which have "eval/return_mean". Both have "step",
in agent steps. A new sink is a class with the methods of `Sink` and one line in SINKS; it imports what it
needs in its constructor.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wn_rl.errors import UserError
from wn_rl.trackers.base import Guarded, Row, RunInfo, Sink, SinkFactory
from wn_rl.trackers.console import ConsoleSink
from wn_rl.trackers.jsonl import JsonlTracker
from wn_rl.trackers.tensorboard import TensorBoardSink
from wn_rl.trackers.weights_and_biases import WandbSink

__all__ = ["CLOCK_KEYS", "SINKS", "TRACKERS", "Row", "RunInfo", "Sink", "Tracker", "make_trackers"]

CLOCK_KEYS = ("frames_per_second", "seconds")
"""The keys that measure time: the only ones in which a resumed run differs from an uninterrupted one."""

SINKS: dict[str, SinkFactory] = {"wandb": WandbSink, "tensorboard": TensorBoardSink, "console": ConsoleSink}
TRACKERS = ("jsonl", *SINKS)
"""Every name that `make_trackers` knows."""


class Tracker(Protocol):
    """What a run logs to. Call `restart` or `load_state_dict` once, before the first row."""

    def restart(self) -> None:
        """Forget every row: the run begins at step 0."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; rows logged after it are forgotten."""

    def log(self, row: Row) -> None:
        """Take one row of metrics; it has "step"."""

    def video(self, step: int, name: str, path: Path) -> None:
        """Take an mp4 file that shows the agent at a step."""

    def close(self, exit_code: int) -> None:
        """Finish in order; 0 is success."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint; what was logged before it is on the disk."""


class Trackers:
    """The record of a run and its sinks, as one tracker. The record comes first, and only it may raise."""

    def __init__(self, record: JsonlTracker, sinks: Sequence[Guarded]) -> None:
        self._record, self._sinks = record, sinks

    def restart(self) -> None:
        """Empty metrics.jsonl and start the sinks anew."""
        self._record.restart()
        for sink in self._sinks:
            sink.start({})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut metrics.jsonl back to the state and start the sinks with theirs.

        Raises:
            UserError: metrics.jsonl is shorter than it was, or was changed.
        """
        self._record.load_state_dict(state["jsonl"])
        for sink in self._sinks:
            sink.start(state["sinks"].get(sink.name, {}))

    def log(self, row: Row) -> None:
        """Pass a row to all.

        Raises:
            ValueError: it has no step.
        """
        self._record.log(row)
        for sink in self._sinks:
            sink.log(row)

    def video(self, step: int, name: str, path: Path) -> None:
        """Pass a video to the sinks."""
        for sink in self._sinks:
            sink.video(step, name, path)

    def close(self, exit_code: int) -> None:
        """Close all. More than one call does no harm."""
        self._record.close(exit_code)
        for sink in self._sinks:
            sink.close(exit_code)

    def state_dict(self) -> dict[str, Any]:
        """The record's state and, by name, the sinks'."""
        sinks = {sink.name: sink.state_dict() for sink in self._sinks}
        return {"jsonl": self._record.state_dict(), "sinks": sinks}


def make_trackers(
    names: Sequence[str],
    *,
    run_dir: Path,
    config: Mapping[str, Any],
    run_name: str,
    group: str,
    tags: Sequence[str],
    total_steps: int,
) -> Trackers:
    """One tracker for all the names, and for jsonl whether it is named or not.

    It opens run_dir/metrics.jsonl and leaves it as it is; sinks are made at `restart` or `load_state_dict`.

    Raises:
        UserError: there is no such tracker; the message names the nearest.
    """
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TRACKERS)}"
            raise UserError(f"unknown tracker {name!r}: {hint}")
    info = RunInfo(Path(run_dir), config, run_name, group, tuple(tags), total_steps)
    sinks = [Guarded(name, factory, info) for name, factory in SINKS.items() if name in names]
    return Trackers(JsonlTracker(info.run_dir), sinks)
