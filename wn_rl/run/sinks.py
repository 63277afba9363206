"""Places that show a run: the terminal and TensorBoard here, Weights & Biases in wandb_sink.py.

A sink may raise or hang: guard.py keeps that from the run. A sink is opened with the state that it had when the
run was saved, in which "step" is that of the last row, or absent before the first row.
"""

import json
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

from wn_rl.config import flat

Row = Mapping[str, Any]
Report = Callable[[str], None]
"""Called with one line for the user."""

CLOCK_KEYS = ("frames_per_second", "seconds")  # these measure time, and differ between equal runs


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


class Sink(Protocol):
    """Where rows and videos go."""

    def log(self, row: Row) -> None:
        """Record one row."""

    def video(self, step: int, name: str, path: Path) -> None:
        """Record a finished mp4 file."""

    def close(self, exit_code: int) -> None:
        """Finish. Nothing is recorded after it."""


class ConsoleSink:
    """A live line at the bottom of a terminal; one plain line per row if standard output is not a terminal."""

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        self._total = info.total_steps
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)  # (step, seconds), for the time left
        self._progress: Any = None
        if sys.stdout.isatty():
            from rich.progress import Progress, SpinnerColumn, TextColumn

            numbers = TextColumn("{task.percentage:>3.0f}%  {task.fields[numbers]}")
            self._progress = Progress(SpinnerColumn(), numbers)
            self._task = self._progress.add_task("", total=self._total, numbers="")
            self._progress.start()

    def log(self, row: Row) -> None:
        """Show a row; an evaluation stands on a line of its own."""
        if row.get("eval/episodes") is not None:
            self._print(_describe_evaluation(row))
            return
        self._recent.append((row["step"], row["seconds"]))
        step = f"step {row['step']:,}/{self._total:,}"
        line = "  ".join([step, *self._describe_time_left(), *_describe_numbers(row)])
        if self._progress is None:
            print(line, flush=True)
        else:
            self._progress.update(self._task, completed=row["step"], numbers=line)

    def video(self, step: int, name: str, path: Path) -> None:
        """Say where it is."""
        self._print(f"step {step:,}  video {path}")

    def close(self, exit_code: int) -> None:
        """Leave the last line on the screen."""
        if self._progress is not None:
            self._progress.stop()

    def _print(self, line: str) -> None:
        if self._progress is None:
            print(line, flush=True)
        else:
            self._progress.console.print(line, markup=False, highlight=False)

    def _describe_time_left(self) -> list[str]:
        (first_step, first_seconds), (step, seconds) = self._recent[0], self._recent[-1]
        if step <= first_step:
            return []
        left = (self._total - step) * (seconds - first_seconds) / (step - first_step)
        return [f"left {timedelta(seconds=int(left))}"]


_SHOWN = {
    "frames_per_second": ("frames/s", ",.0f"),
    "train/return": ("return", ".2f"),
    "loss": ("loss", ".4g"),
    "q_mean": ("mean Q", ".3g"),
    "epsilon": ("epsilon", ".3f"),
}


def _describe_numbers(row: Row) -> list[str]:
    shown = [(key, label, form) for key, (label, form) in _SHOWN.items() if row.get(key) is not None]
    return [f"{label} {row[key]:{form}}" for key, label, form in shown]


def _describe_evaluation(row: Row) -> str:
    mean, deviation = row.get("eval/return_mean"), row.get("eval/return_std")
    score = "no finished episode" if mean is None else f"return {mean:.2f}"
    spread = "" if deviation is None else f" (standard deviation {deviation:.2f})"
    return f"step {row['step']:,}  evaluation: {score}{spread}, episodes {row['eval/episodes']}"


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
