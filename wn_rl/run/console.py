"""What a terminal shows of a run: its settings when it starts, and how far it is."""

import atexit
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wn_rl.config import Config, flat
from wn_rl.errors import counted
from wn_rl.registry import PRESETS
from wn_rl.run.sinks import Row, RunInfo

if TYPE_CHECKING:
    from rich.text import Text

_LISTED = 5  # settings that differ from the preset's
_REFRESHES_PER_SECOND = 4
_MARGIN = 5  # columns for the ^C that a terminal echoes: a line that it wraps would stay on the screen
_LONGEST_BAR = 40


def describe_start(config: Config, folder: Path) -> list[str]:
    """The lines on a run that starts: where, what, and which settings differ from the preset's.

    config: with its device and its learning rate resolved.
    """
    preset = PRESETS[config.preset](config.game)
    usual = {**flat(preset), "optimizer.learning_rate": preset.learning_rate}
    elsewhere = {"game", "suite", "preset", "steps", "seed", "device", "run_name", "torch_threads"}
    differing = [
        f"  --{name.replace('_', '-')} {_in_words(value)} (preset: {_in_words(usual[name])})"
        for name, value in flat(config).items()
        if value != usual[name] and name not in elsewhere
    ]
    if len(differing) > _LISTED + 1:
        differing[_LISTED:] = [f"  and {len(differing) - _LISTED} more: see config.json"]
    return [
        f"folder  {folder}",
        f"game    {config.game} ({config.suite}), {config.steps:,} steps, seed {config.seed}",
        f"device  {config.device}, {counted(config.torch_threads, 'thread')} of torch",
        f"preset  {config.preset}{', but' if differing else ''}",
        *differing,
    ]


def _in_words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class ConsoleSink:
    """Two live lines at the bottom of a terminal, which move with time; otherwise a plain line for each row."""

    def __init__(self, info: RunInfo, state: dict[str, Any]) -> None:
        self._activity, self._total = info.activity, info.total_steps
        self._started = self._logged = time.monotonic()
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)  # (step, seconds), for the time left
        self._row: Row = {}
        self._live: Any = None
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._console = Console()
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),
            )
            atexit.register(self._live.stop)  # a second Ctrl-C closes no sink, and the cursor is to come back
            self._live.start()

    def log(self, row: Row) -> None:
        """Show a row; an evaluation stands on a line of its own."""
        if row.get("eval/episodes") is not None:
            self._print(_describe_evaluation(row))
            return
        self._row, self._logged = row, time.monotonic()
        self._recent.append((row["step"], row["seconds"]))
        if self._live is None:
            self._print("  ".join(self._describe_row()))

    def video(self, step: int, name: str, path: Path) -> None:
        """Say where it is."""
        self._print(f"step {step:,}  video {path}")

    def close(self, exit_code: int) -> None:
        """Leave the last row on the screen."""
        if self._live is not None:
            self._live.stop()
            if self._row:
                self._print(_fit(self._describe_row(), self._console.width))

    def _print(self, line: str) -> None:
        if self._live is None:
            print(line, flush=True)
        else:
            self._console.print(line, markup=False, highlight=False)

    def _render(self) -> "Text":
        """The live lines: what the run does and how far it is, and the numbers that there is room for."""
        from rich.text import Text

        activity, width = self._activity, self._console.width - _MARGIN
        if not activity.doing:
            return Text()
        now = time.monotonic()
        share = min(1.0, activity.step / self._total)
        times = [str(timedelta(seconds=int(now - self._started))), *self._describe_time_left(now - self._logged)]
        words = "  ".join([f" {share:4.0%}", f"{activity.step:,}/{self._total:,}", *times])
        bar = max(0, min(_LONGEST_BAR, width - len(words) - 12))
        done = int(share * bar)
        best = [] if activity.best is None else [f"best {activity.best:.2f}"]
        numbers = _describe_numbers(self._row)
        shown = _fit([*numbers[:1], *best, *numbers[1:]], width)
        parts = (f"{activity.doing:<12}", "bold"), ("━" * done, "green"), ("─" * (bar - done), "dim")
        return Text.assemble(*parts, words, "\n", shown, no_wrap=True, overflow="crop")

    def _describe_row(self) -> list[str]:
        step = f"step {self._row['step']:,}/{self._total:,}"
        return [step, *self._describe_time_left(), *_describe_numbers(self._row)]

    def _describe_time_left(self, since: float = 0.0) -> list[str]:
        """The time left, from the rows of this process, the last of which came `since` seconds ago."""
        if len(self._recent) < 2:
            return []
        (first_step, first_seconds), (step, seconds) = self._recent[0], self._recent[-1]
        left = (self._total - step) * (seconds - first_seconds) / (step - first_step) - since
        return [f"left {timedelta(seconds=max(0, int(left)))}"]


def _fit(parts: Sequence[str], width: int) -> str:
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
