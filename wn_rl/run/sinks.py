"""Places that show a run: the terminal and TensorBoard here, Weights & Biases in wandb_sink.py.

A sink may raise or hang; guard.py sees to it that the run does not notice. It is opened with the state that
it had when the run was saved, in which "step" is that of the last row, or absent before the first.
"""

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What sinks are told of a run."""

    run_dir: Path
    config: dict[str, Any]
    run_name: str
    group: str | None
    tags: tuple[str, ...]
    total_steps: int | None
    report: Callable[[str], None]


class Sink(Protocol):
    """Shows rows and videos."""

    def log(self, row: Row) -> None:
        """Show a row."""
        ...

    def video(self, step: int, name: str, path: Path) -> None:
        """Show an mp4 file."""
        ...

    def close(self, exit_code: int) -> None:
        """Finish."""
        ...


class ConsoleSink:
    """A live line at the bottom of a terminal; one plain line a row where standard output is none."""

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        self._total = info.total_steps
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)  # (step, seconds), for the time left
        self._progress: Any = None
        if sys.stdout.isatty():
            self._start_progress()

    def log(self, row: Row) -> None:
        """Show a row: tests stand on a line of their own."""
        if row.get("eval/episodes") is not None:
            self._print(_describe_test(row))
            return
        if row.get("seconds") is not None:
            self._recent.append((row["step"], row["seconds"]))
        left = self._seconds_left()
        if self._progress is None:
            print(_describe_training(row, self._total, left), flush=True)
        else:
            self._progress.update(self._task, completed=row["step"], numbers=_describe_training(row, None, left))

    def video(self, step: int, name: str, path: Path) -> None:
        """Say where it is."""
        self._print(f"step {step:,}  video {path}")

    def close(self, exit_code: int) -> None:
        """Leave the last line on the screen."""
        if self._progress is not None:
            self._progress.stop()

    def _start_progress(self) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn

        self._progress = Progress(SpinnerColumn(), TextColumn("{task.percentage:>3.0f}%  {task.fields[numbers]}"))
        self._task = self._progress.add_task("", total=self._total, numbers="")
        self._progress.start()

    def _print(self, line: str) -> None:
        if self._progress is None:
            print(line, flush=True)
        else:
            self._progress.console.print(line, markup=False, highlight=False)

    def _seconds_left(self) -> float | None:
        if self._total is None or len(self._recent) < 2:
            return None
        (first_step, first_seconds), (step, seconds) = self._recent[0], self._recent[-1]
        if step <= first_step:
            return None
        return (self._total - step) * (seconds - first_seconds) / (step - first_step)


def _describe_training(row: Row, total_steps: int | None, seconds_left: float | None) -> str:
    of_total = "" if total_steps is None else f"/{total_steps:,}"
    formats = {
        "frames_per_second": ("frames/s", ",.0f"),
        "train/return": ("return", ".2f"),
        "loss": ("loss", ".4g"),
        "q_mean": ("mean Q", ".3g"),
        "epsilon": ("epsilon", ".3f"),
    }
    parts = [f"step {row['step']:,}{of_total}"]
    if seconds_left is not None:  # before what a narrow terminal cuts off
        minutes, seconds = divmod(int(seconds_left), 60)
        parts.append(f"left {minutes // 60}:{minutes % 60:02}:{seconds:02}")
    for key, (label, form) in formats.items():
        if row.get(key) is not None:
            parts.append(f"{label} {row[key]:{form}}")
    return "  ".join(parts)


def _describe_test(row: Row) -> str:
    mean, deviation = row.get("eval/return_mean"), row.get("eval/return_std")
    score = "no finished game" if mean is None else f"return {mean:.2f}"
    spread = "" if deviation is None else f" (standard deviation {deviation:.2f})"
    return f"step {row['step']:,}  test: {score}{spread}, games {row['eval/episodes']}"


class TensorBoardSink:
    """Event files in the run's folder, scalars only: its video summaries need moviepy, which is not used.

    Rows after the checkpoint that a run is resumed from are purged.
    """

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make_writer: Any = SummaryWriter
        self._writer = make_writer(str(info.run_dir / "tensorboard"), purge_step=state.get("step", -1) + 1)

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
