"""What a terminal shows of a run: its settings when it starts, and how far it is."""

import atexit
import os
import sys
from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wn_rl.config import Config, flat
from wn_rl.errors import counted
from wn_rl.registry import PRESETS
from wn_rl.run.sinks import Row, RunInfo

_LISTED = 6  # lines on settings that differ from the preset's
_OTHER_LINES = ("game", "suite", "preset", "steps", "seed", "device", "run_name", "torch_threads")
_MARGIN = 5  # columns for the ^C that a terminal echoes: a line that it wraps would stay on the screen


def describe_start(config: Config, folder: Path) -> list[str]:
    """The lines on a run that starts: where, what, and which settings are not the preset's."""
    own, usual = _texts(config), _texts(PRESETS[config.preset](config.game))
    names = [name for name in own if own[name] != usual[name] and name not in _OTHER_LINES]
    other = [f"  --{name.replace('_', '-')} {own[name]} (preset: {usual[name]})" for name in names]
    if len(other) > _LISTED:
        other[_LISTED - 1 :] = [f"  and {len(other) - _LISTED + 1} more: see config.json"]
    return [
        f"folder  {folder}",
        f"game    {config.game} ({config.suite}), {config.steps:,} steps, seed {config.seed}",
        f"device  {config.device}, {counted(config.torch_threads, 'thread')} of torch",
        f"preset  {config.preset}{', but' if other else ''}",
        *other,
    ]


def _texts(config: Config) -> dict[str, str]:
    values = {**flat(config), "optimizer.learning_rate": config.learning_rate}
    return {name: " ".join(it) if isinstance(it, list) else str(it) for name, it in values.items()}


class _Lines(Progress):
    """Two lines at the bottom of a terminal: how far a run is with what it does, and numbers."""

    def __init__(self, info: RunInfo) -> None:
        self.activity, self.numbers = info.activity, list[str]()
        steps = TextColumn("{task.completed:,}/{task.total:,}")
        times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        columns = TextColumn("{task.description:<10}"), BarColumn(18), TaskProgressColumn(), steps, *times
        shows_errors = sys.stderr.isatty()
        super().__init__(*columns, speed_estimate_period=600, transient=True, redirect_stderr=shows_errors)
        self.add_task("", total=info.total_steps)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Called a few times a second, by a thread of rich's."""
        if self.task_ids:  # none while this is made
            self.update(self.task_ids[0], completed=self.activity.step, description=self.activity.doing)
            yield from super().get_renderables()
            best = [] if self.activity.best is None else [f"best {self.activity.best:.2f}"]
            yield _fit([*self.numbers[:1], *best, *self.numbers[1:]], self.console.width - _MARGIN)


class ConsoleSink:
    """Live lines at the bottom of a terminal, which move with time; otherwise a plain line for each row."""

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        self._total = info.total_steps
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)  # (step, seconds), for the time left
        self._lines = _Lines(info) if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else None
        if self._lines is not None:
            atexit.register(self._lines.stop)  # a second Ctrl-C closes no sink, and the cursor is to come back
            self._lines.start()

    def log(self, row: Row) -> None:
        """Show a row; an evaluation stands on a line of its own."""
        if row.get("eval/episodes") is not None:
            print(_describe_evaluation(row), flush=True)
            return
        self._recent.append((row["step"], row["seconds"]))
        if self._lines is not None:
            self._lines.numbers = _describe_numbers(row)
        else:
            step = f"step {row['step']:,}/{self._total:,}"
            print("  ".join([step, *self._describe_time_left(), *_describe_numbers(row)]), flush=True)

    def video(self, step: int, name: str, path: Path) -> None:
        """Say where it is."""
        print(f"step {step:,}  video {path}", flush=True)

    def close(self, exit_code: int) -> None:
        """Leave the last numbers on the screen."""
        if self._lines is not None:
            self._lines.stop()
            print(_fit(self._lines.numbers, self._lines.console.width) or "no metrics yet", flush=True)

    def _describe_time_left(self) -> list[str]:
        (first_step, first_seconds), (step, seconds) = self._recent[0], self._recent[-1]
        if step <= first_step:
            return []
        left = (self._total - step) * (seconds - first_seconds) / (step - first_step)
        return [f"left {timedelta(seconds=int(left))}"]


def _fit(parts: list[str], width: int) -> str:
    """As many parts as there is room for."""
    return "  ".join(parts) if len("  ".join(parts)) <= width else _fit(parts[:-1], width)


_SHOWN = {
    "epsilon": ("epsilon", ".3f"),
    "train/return": ("return", ".2f"),
    "frames_per_second": ("frames/s", ",.0f"),
    "loss": ("loss", ".4g"),
    "q_mean": ("mean Q", ".3g"),
}


def _describe_numbers(row: Row) -> list[str]:
    shown = [(key, label, form) for key, (label, form) in _SHOWN.items() if row.get(key) is not None]
    return [f"{label} {row[key]:{form}}" for key, label, form in shown]


def _describe_evaluation(row: Row) -> str:
    mean, deviation = row.get("eval/return_mean"), row.get("eval/return_std")
    score = "no finished episode" if mean is None else f"return {mean:.2f}"
    spread = "" if deviation is None else f" (standard deviation {deviation:.2f})"
    return f"step {row['step']:,}  evaluation: {score}{spread}, episodes {row['eval/episodes']}"
