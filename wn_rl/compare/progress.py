"""How far runs are and how long they still take, by what is in their folders, in plain lines."""

import dataclasses
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wn_rl.compare.grid import Entry, Run, State
from wn_rl.errors import UserError, counted
from wn_rl.run.folder import Row, RunFolder

_RECENT_ROWS = 100  # of metrics.jsonl, which give a run's speed
_PERIOD_SECONDS = 60.0  # between two looks at the folders
_ORDER: tuple[State, ...] = ("running", "busy", "failed", "unreadable", "interrupted", "waiting", "finished")


@dataclass(frozen=True)
class Progress:
    """A run as it stands, by its metrics."""

    entry: Entry
    step: int
    score: float | None
    """Mean return of the last evaluation."""
    steps_per_second: float | None
    """Recent, evaluations and checkpoints included."""
    seconds_left: float | None = None
    """By its own speed, or else by that of the runs of its suite; None if neither is known."""

    @property
    def is_to_run(self) -> bool:
        """Whether it will take time yet."""
        return self.entry.state in ("running", "waiting", "busy")

    @property
    def steps_left(self) -> int:
        """Agent steps to the end."""
        return max(0, self.entry.run.config.steps - self.step)


def rows_of(run: Run) -> list[Row]:
    """The whole rows of metrics.jsonl so far; an empty list if there are no metrics yet, or they are damaged."""
    try:
        return RunFolder(run.path).read_rows()
    except UserError:
        return []


def returns_in(rows: Iterable[Row]) -> list[float]:
    """The mean return of each evaluation in which an episode ended."""
    return [row["eval/return_mean"] for row in rows if row.get("eval/return_mean") is not None]


def survey(entries: Sequence[Entry]) -> list[Progress]:
    """The runs as they stand, in the same order."""
    found = [_progress_of(entry) for entry in entries]
    speeds = defaultdict[str, list[float]](list)
    for progress in found:
        if progress.steps_per_second:
            speeds[progress.entry.run.config.suite].append(progress.steps_per_second)
    return [dataclasses.replace(progress, seconds_left=_seconds_left(progress, speeds)) for progress in found]


def _seconds_left(progress: Progress, speeds: Mapping[str, Sequence[float]]) -> float | None:
    similar = speeds.get(progress.entry.run.config.suite)
    # Equal steps take times that add up, so speeds have a harmonic mean.
    speed = progress.steps_per_second or (statistics.harmonic_mean(similar) if similar else None)
    return progress.steps_left / speed if speed else None


def _progress_of(entry: Entry) -> Progress:
    rows = rows_of(entry.run)
    timed = [(row["step"], row["seconds"]) for row in rows if "seconds" in row][-_RECENT_ROWS:]
    score = next(reversed(returns_in(rows)), None)
    return Progress(entry, max((row["step"] for row in rows), default=0), score, _speed(timed))


def _speed(timed: Sequence[tuple[int, float]]) -> float | None:
    """Steps per second from the first to the last of (step, seconds), or from the run's start if there is one."""
    points = timed if len(timed) > 1 else [(0, 0.0), *timed]
    steps, seconds = (last - first for first, last in zip(points[0], points[-1], strict=True))
    return steps / seconds if steps > 0 and seconds > 0 else None


def total_seconds(found: Iterable[Progress], at_once: int) -> float | None:
    """The time until all that is to run has ended, at_once at a time; None if the speed of a run is not known."""
    left = [progress.seconds_left for progress in found if progress.is_to_run]
    known = [seconds for seconds in left if seconds is not None]
    return max([sum(known) / at_once, *known], default=0.0) if len(known) == len(left) else None


class Display:
    """Prints a line when the state of a run changes, and each minute one for each run that is running.

    at_once: how many runs are computed beside each other.
    """

    def __init__(self, entries: Sequence[Entry], at_once: int) -> None:
        self._entries, self._at_once = entries, at_once
        self._said: dict[str, str] = {}
        self._due = time.monotonic() + _PERIOD_SECONDS

    def update(self) -> None:
        """Print what has changed and, if it is time, how far the runs are."""
        self._print_changes()
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PERIOD_SECONDS
            found = survey(self._entries)
            lines = [in_words(progress) for progress in found if progress.entry.state == "running"]
            print(*lines, summary(found, self._at_once), sep="\n", flush=True)

    def close(self) -> None:
        """Print how the runs ended."""
        self._print_changes()
        print(summary(survey(self._entries), self._at_once), flush=True)

    def _print_changes(self) -> None:
        for entry in self._entries:
            state = _describe(entry)
            if state != self._said.get(entry.run.name):
                self._said[entry.run.name] = state
                print(f"{entry.run.name}: {state}", flush=True)


def _describe(entry: Entry) -> str:
    return f"{entry.state}: {entry.message}" if entry.message else entry.state


def in_words(progress: Progress) -> str:
    """A run in a line, each number with its name."""
    run = progress.entry.run
    parts = [run.name, _describe(progress.entry), f"step {progress.step:,}/{run.config.steps:,}"]
    if progress.score is not None:
        parts.append(f"score {progress.score:.2f}")
    if progress.steps_per_second is not None:
        parts.append(f"steps/s {progress.steps_per_second:,.0f}")
    if progress.seconds_left is not None and progress.is_to_run:
        parts.append(f"left {duration(progress.seconds_left)}")
    return "  ".join(parts)


def summary(found: Sequence[Progress], at_once: int) -> str:
    """All runs in a line, e.g. "9 runs: 2 running, 3 waiting, 4 finished; about 0:12:30 left"."""
    counts = Counter(progress.entry.state for progress in found)
    states = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    left = total_seconds(found, at_once)
    return f"{counted(len(found), 'run')}: {states}" + (f"; about {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, e.g. 0:12:30."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
