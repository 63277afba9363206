"""How far runs are and how long they still take, by what is in their folders; as a live table or plain lines."""

import dataclasses
import functools
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wn_rl.compare.grid import Entry, State
from wn_rl.errors import counted
from wn_rl.run.folder import RunFolder

_RECENT_ROWS = 100  # of metrics.jsonl, which give a run's speed
_TABLE_SECONDS, _LINES_SECONDS = 1.0, 60.0  # between two looks at the folders
_ORDER: tuple[State, ...] = ("running", "busy", "failed", "unreadable", "interrupted", "waiting", "finished")
_COLUMNS = ("run", "state", "step", "score", "steps/s", "left")


Progress = tuple[int, float | None, float | None]
"""A run's last step, its last score and its speed; see `Row`."""


@dataclass(frozen=True)
class Row:
    """A run as it stands, by its metrics."""

    entry: Entry
    step: int
    score: float | None
    """Mean return of the last evaluation."""
    steps_per_second: float | None
    """Recent, evaluations and checkpoints included."""
    seconds_left: float | None = None
    """By its own speed or else that of similar runs; None if there is none."""

    @property
    def is_to_run(self) -> bool:
        """Whether it will take time yet."""
        return self.entry.state in ("running", "waiting", "busy")


def survey(entries: Sequence[Entry]) -> list[Row]:
    """The runs as they stand, in the same order."""
    rows = [Row(entry, *_progress_in(RunFolder(entry.run.path))) for entry in entries]
    speeds = defaultdict[tuple[str, ...], list[float]](list)
    for row in rows:
        for kind in _kinds(row.entry) if row.steps_per_second else ():
            speeds[kind].append(row.steps_per_second or 0.0)
    return [dataclasses.replace(row, seconds_left=_seconds_left(row, speeds)) for row in rows]


def _seconds_left(row: Row, speeds: Mapping[tuple[str, ...], Sequence[float]]) -> float | None:
    # Equal steps take times that add up, so speeds have a harmonic mean.
    similar = (statistics.harmonic_mean(speeds[kind]) for kind in _kinds(row.entry) if kind in speeds)
    speed = row.steps_per_second or next(similar, None)
    return max(0, row.entry.run.config.steps - row.step) / speed if speed else None


def _kinds(entry: Entry) -> tuple[tuple[str, ...], ...]:
    """Runs of the same game are similar, and else those of the same suite."""
    config = entry.run.config
    return (config.suite, config.game), (config.suite,)


def rows_so_far(folder: RunFolder) -> list[dict[str, Any]]:
    """The whole rows of metrics.jsonl; damaged ones, and one that is being written, are left out."""
    try:
        lines = folder.metrics_file.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    return [row for line in lines if isinstance(row := _parse(line), dict)]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _progress_in(folder: RunFolder) -> Progress:
    try:
        status = folder.metrics_file.stat()
    except OSError:
        return 0, None, None
    return _read_progress(folder.path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=10_000)  # a file that has not changed is not read again
def _read_progress(path: Any, changed_ns: int, size: int) -> Progress:
    rows = rows_so_far(RunFolder(path))
    timed = [(row["step"], row["seconds"]) for row in rows if _has_numbers(row, "step", "seconds")]
    scores = [row["eval/return_mean"] for row in rows if _has_numbers(row, "eval/return_mean")]
    steps = [row["step"] for row in rows if _has_numbers(row, "step")]
    return max(steps, default=0), scores[-1] if scores else None, _speed(timed[-_RECENT_ROWS:])


def _has_numbers(row: dict[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), int | float) for name in names)


def _speed(timed: Sequence[tuple[int, float]]) -> float | None:
    """Steps per second from the first to the last of (step, seconds), or from the run's start if there is one."""
    points = timed if len(timed) > 1 else [(0, 0.0), *timed]
    steps, seconds = (last - first for first, last in zip(points[0], points[-1], strict=True))
    return steps / seconds if steps > 0 and seconds > 0 else None


def total_seconds(rows: Iterable[Row], at_once: int) -> float | None:
    """The time until all that is to run has ended, so many at once; None if the speed of a run is not known."""
    left = [row.seconds_left for row in rows if row.is_to_run]
    known = [seconds for seconds in left if seconds is not None]
    return max([sum(known) / at_once, *known], default=0.0) if len(known) == len(left) else None


class Display:
    """Shows runs: on a terminal a live table, else a line when a state changes and each minute one for each run.

    at_once: how many runs go on beside each other.
    """

    def __init__(self, entries: Sequence[Entry], at_once: int) -> None:
        self._entries, self._at_once = entries, at_once
        self._said: dict[str, str] = {}
        self._live: Any = None
        self._due = time.monotonic() + _LINES_SECONDS
        if sys.stdout.isatty():
            from rich.live import Live

            self._live, self._due = Live(auto_refresh=False), 0.0
            self._live.start()

    def update(self) -> None:
        """Show how the runs stand, if it is time."""
        if not self._live:
            self._print_changes()
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + (_TABLE_SECONDS if self._live else _LINES_SECONDS)
        rows = survey(self._entries)
        if self._live:
            self._live.update(table(rows, self._at_once), refresh=True)
        else:
            lines = [in_words(row) for row in rows if row.entry.state == "running"]
            print(*lines, summary(rows, self._at_once), sep="\n", flush=True)

    def close(self) -> None:
        """Show how they ended."""
        rows = survey(self._entries)
        if self._live:
            self._live.vertical_overflow = "visible"  # the whole table stays on the screen
            self._live.update(table(rows, self._at_once), refresh=True)
            self._live.stop()
        else:
            self._print_changes()
            print(summary(rows, self._at_once), flush=True)

    def _print_changes(self) -> None:
        for entry in self._entries:
            if _describe(entry) != self._said.get(entry.run.name):
                self._said[entry.run.name] = _describe(entry)
                print(f"{entry.run.name}: {_describe(entry)}", flush=True)


def table(rows: Sequence[Row], at_once: int) -> Any:
    """The runs as a table of rich: what goes on comes first, what is finished last."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, title=summary(rows, at_once), title_justify="left", title_style="")
    for name in _COLUMNS:
        drawn.add_column(name, justify="left" if name in ("run", "state") else "right", no_wrap=name != "state")
    for row in sorted(rows, key=lambda row: _ORDER.index(row.entry.state)):
        drawn.add_row(*map(Text, cells(row)))
    return drawn


def cells(row: Row) -> tuple[str, ...]:
    """What the columns say of a run; empty where nothing is known."""
    return (
        row.entry.run.name,
        _describe(row.entry),
        f"{row.step:,}/{row.entry.run.config.steps:,}",
        "" if row.score is None else f"{row.score:.2f}",
        "" if row.steps_per_second is None else f"{row.steps_per_second:,.0f}",
        "" if row.seconds_left is None or not row.is_to_run else duration(row.seconds_left),
    )


def in_words(row: Row) -> str:
    """A run in a line, each number with its name."""
    name, state, *numbers = cells(row)
    named = [f"{column} {cell}" for column, cell in zip(_COLUMNS[2:], numbers, strict=True) if cell]
    return "  ".join([name, state, *named])


def _describe(entry: Entry) -> str:
    return f"{entry.state}: {entry.message}" if entry.message else entry.state


def summary(rows: Sequence[Row], at_once: int) -> str:
    """All runs in a line, e.g. "9 runs: 2 running, 3 waiting, 4 finished; about 0:12:30 left"."""
    counts = Counter(row.entry.state for row in rows)
    states = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    left = total_seconds(rows, at_once)
    return f"{counted(len(rows), 'run')}: {states}" + (f"; about {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, e.g. 0:12:30."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
