"""How far runs are and how long they still take, by what is in their folders, in plain lines."""

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wn_rl.compare.grid import Entry, Run, State
from wn_rl.errors import UserError, counted
from wn_rl.run.folder import Row, RunFolder

_RECENT_ROWS = 100  # of metrics.jsonl, which give a run's speed
_PERIOD_SECONDS = 60.0  # between two looks at the folders
_TO_RUN: tuple[State, ...] = ("running", "busy", "waiting")  # they will take time yet
_ORDER: tuple[State, ...] = ("running", "busy", "failed", "unreadable", "interrupted", "waiting", "finished")


@dataclass(frozen=True)
class Progress:
    """A run as it stands, by its metrics. score: mean return of the last evaluation. speed: recent agent steps per
    second, evaluations and checkpoints included.
    """

    entry: Entry
    step: int
    score: float | None
    speed: float | None


def rows_of(run: Run) -> list[Row]:
    """The whole rows of metrics.jsonl so far; an empty list if there are no metrics yet, or they are damaged."""
    try:
        return RunFolder(run.path).read_rows()
    except UserError:
        return []


def returns_in(rows: Iterable[Row]) -> list[float]:
    """The mean return of each evaluation in which an episode ended."""
    return [row["eval/return_mean"] for row in rows if row.get("eval/return_mean") is not None]


def progress_of(entry: Entry) -> Progress:
    """A run as it stands."""
    rows = rows_of(entry.run)
    timed = [(row["step"], row["seconds"]) for row in rows if "seconds" in row][-_RECENT_ROWS:]
    first = timed[0] if len(timed) > 1 else (0, 0.0)  # with one row, the run's start
    steps, seconds = (last - before for before, last in zip(first, timed[-1] if timed else first, strict=True))
    speed = steps / seconds if steps > 0 and seconds > 0 else None
    score = next(reversed(returns_in(rows)), None)
    return Progress(entry, max((row["step"] for row in rows), default=0), score, speed)


def seconds_left(found: Iterable[Progress], at_once: int) -> float | None:
    """The time until all that is to run has ended, at_once at a time; None if the speed of a run is not known.

    A run without a speed of its own has the mean one of the runs of its suite.
    """
    speeds: dict[str, list[float]] = {}
    for each in found:
        speeds.setdefault(each.entry.run.config.suite, []).extend([each.speed] if each.speed else [])
    left = [0.0]
    for each in found:
        config = each.entry.run.config
        if each.entry.state in _TO_RUN:
            if not speeds[config.suite]:
                return None
            # Equal steps take times that add up, so speeds have a harmonic mean.
            speed = each.speed or statistics.harmonic_mean(speeds[config.suite])
            left.append(max(0, config.steps - each.step) / speed)
    return max(sum(left) / at_once, *left)


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
        for entry in self._entries:
            state = _describe(entry)
            if state != self._said.get(entry.run.name):
                self._said[entry.run.name] = state
                print(f"{entry.run.name}: {state}", flush=True)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PERIOD_SECONDS
            self.print_progress("running")

    def print_progress(self, *states: State) -> None:
        """Print a line for each run in these states, and one for all runs together."""
        found = [progress_of(entry) for entry in self._entries]
        lines = [in_words(progress) for progress in found if progress.entry.state in states]
        print(*lines, summary(found, self._at_once), sep="\n", flush=True)


def _describe(entry: Entry) -> str:
    return f"{entry.state}: {entry.message}" if entry.message else entry.state


def in_words(progress: Progress) -> str:
    """A run in a line, each number with its name."""
    run = progress.entry.run
    parts = [run.name, _describe(progress.entry), f"step {progress.step:,}/{run.config.steps:,}"]
    parts += [] if progress.score is None else [f"score {progress.score:.2f}"]
    parts += [] if progress.speed is None else [f"steps/s {progress.speed:,.0f}"]
    return "  ".join(parts)


def summary(found: Sequence[Progress], at_once: int) -> str:
    """All runs in a line, e.g. "9 runs: 2 running, 3 waiting, 4 finished; about 0:12:30 left"."""
    counts = Counter(progress.entry.state for progress in found)
    states = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    left = seconds_left(found, at_once)
    minutes, seconds = divmod(round(left or 0), 60)
    time_left = f"; about {minutes // 60}:{minutes % 60:02}:{seconds:02} left" if left else ""
    return f"{counted(len(found), 'run')}: {states}{time_left}"
