"""Places that show a run: TensorBoard here, the terminal in console.py, Weights & Biases in wandb_sink.py.

A sink may raise or hang: guard.py keeps that from the run. A sink is opened with the state that it had when the
run was saved, in which "step" is that of the last row, or absent before the first row.
"""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from wn_rl.config import flat

Row = Mapping[str, Any]
Report = Callable[[str], None]
"""Called with one line for the user."""

CLOCK_KEYS = ("frames_per_second", "seconds")  # these measure time, and differ between equal runs


@dataclass
class Activity:
    """What a run does at this moment, which sinks may read from their own threads at any time.

    doing: one word. best: the maximum evaluation score.
    """

    doing: str = "starting"
    step: int = 0
    best: float | None = None


@dataclass(frozen=True)
class RunInfo:
    """What a sink knows of a run. config: plain JSON values. report: sinks call it from their own threads."""

    run_dir: Path
    config: dict[str, Any]
    run_name: str
    group: str
    tags: tuple[str, ...]
    total_steps: int
    report: Report
    activity: Activity = field(default_factory=Activity)


class Sink(Protocol):
    """Where rows and videos go."""

    def log(self, row: Row) -> None:
        """Record one row."""

    def video(self, step: int, name: str, path: Path) -> None:
        """Record a finished mp4 file."""

    def close(self, exit_code: int) -> None:
        """Finish. Nothing is recorded after it."""


class TensorBoardSink:
    """Event files in the run's folder: scalars, the config as a text, and hyperparameters with the scores.

    It has no videos: TensorBoard shows no mp4, and its writer needs moviepy to make anything else of one. Rows
    after the checkpoint that a run is resumed from are purged.
    """

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter, summary

        make_writer, make_hparams = cast(Any, SummaryWriter), cast(Any, summary.hparams)
        start = state.get("step", -1) + 1
        self._writer = make_writer(str(info.run_dir / "tensorboard"), purge_step=start)
        self._writer.add_text("config", textwrap.indent(json.dumps(info.config, indent=4), "    "), start)
        values = {
            name: value if isinstance(value, int | float) else str(value)
            for name, value in flat(info.config).items()
        }
        scores = dict.fromkeys(("eval/return_mean", "eval/best"), 0.0)  # by name: their scalars have the values
        for part in make_hparams(values, scores):
            self._writer.file_writer.add_summary(part)

    def log(self, row: Row) -> None:
        """Write each number as a scalar at the row's step."""
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def video(self, step: int, name: str, path: Path) -> None:
        """Nothing."""

    def close(self, exit_code: int) -> None:
        """Close the file."""
        self._writer.close()
