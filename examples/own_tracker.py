"""Metrics to a place of your own: python examples/own_tracker.py [STEPS]."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from wn_rl.presets import minatar
from wn_rl.registry import TRACKERS
from wn_rl.run.guard import GuardedTracker
from wn_rl.run.sinks import Row, RunInfo
from wn_rl.run.training import train


class Scores:
    """The score of each test in a file of its own. It runs in a thread of its own, and may fail."""

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        self._file = (info.run_dir / "scores.csv").open("a")

    def log(self, row: Row) -> None:
        """One row of metrics: those of training and those of tests come apart."""
        if row.get("eval/return_mean") is not None:
            print(row["step"], row["eval/return_mean"], sep=",", file=self._file, flush=True)

    def video(self, step: int, name: str, path: Path) -> None:
        """A finished mp4 file."""

    def close(self, exit_code: int) -> None:
        """The run is over."""
        self._file.close()


TRACKERS["scores"] = lambda info: GuardedTracker("scores", lambda state: Scores(info, state), {}, info.report)

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    config = minatar("breakout")
    often = dataclasses.replace(config.evaluation, period=steps // 5)
    train(dataclasses.replace(config, steps=steps, evaluation=often, track=("console", "scores")), "runs/tracked")
