"""What is shown of a comparison while it runs: a live table, or plain lines where there is no terminal."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from wn_rl.compare.launch import Entry, State
from wn_rl.compare.progress import Row, Survey, total_seconds

_TABLE_SECONDS = 1.0  # between two looks at the folders
_PLAIN_SECONDS = 60.0  # between two plain lines of a run

_ORDER: tuple[State, ...] = ("running", "busy", "failed", "unreadable", "interrupted", "waiting", "finished")


class Display(Protocol):
    """Shows the runs. `update` is called often; it looks at them when that is due."""

    def update(self) -> None:
        """Show how the runs stand, if it is time."""
        ...

    def close(self) -> None:
        """Show how they ended."""
        ...


def make_display(entries: Sequence[Entry], at_once: int) -> Display:
    """A live table on a terminal, else plain lines. at_once: how many runs go on beside each other."""
    return (LiveTable if sys.stdout.isatty() else PlainLines)(entries, at_once)


class LiveTable:
    """A table at the bottom of a terminal: what is going on first, what is finished last."""

    def __init__(self, entries: Sequence[Entry], at_once: int) -> None:
        from rich.live import Live

        self._survey, self._at_once = Survey(entries), at_once
        self._due = 0.0
        self._live = Live(auto_refresh=False)
        self._live.start()

    def update(self) -> None:
        """Draw it again, if it is time."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _TABLE_SECONDS
            self._live.update(table(self._survey.rows(), self._at_once), refresh=True)

    def close(self) -> None:
        """Leave the last table on the screen, whole."""
        self._live.vertical_overflow = "visible"
        self._live.update(table(self._survey.rows(), self._at_once), refresh=True)
        self._live.stop()


class PlainLines:
    """A line when the state of a run changes, and every minute one for each that is running."""

    def __init__(self, entries: Sequence[Entry], at_once: int) -> None:
        self._entries, self._survey, self._at_once = entries, Survey(entries), at_once
        self._said = [""] * len(entries)
        self._due = time.monotonic() + _PLAIN_SECONDS

    def update(self) -> None:
        """Print what is new."""
        for index, entry in enumerate(self._entries):
            says = describe(entry)
            if says != self._said[index]:
                self._said[index] = says
                print(f"{entry.run.name}: {says}", flush=True)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PLAIN_SECONDS
            rows = self._survey.rows()
            for row in rows:
                if row.entry.state == "running":
                    print(in_words(row), flush=True)
            print(summary(rows, self._at_once), flush=True)

    def close(self) -> None:
        """Print what is new, and the sum of it."""
        self.update()
        print(summary(self._survey.rows(), self._at_once), flush=True)


def table(rows: Iterable[Row], at_once: int) -> Any:
    """The runs as a table of rich, those that matter most now first."""
    from rich.table import Table
    from rich.text import Text

    rows = sorted(rows, key=lambda row: _ORDER.index(row.entry.state))
    drawn = Table(box=None, pad_edge=False, title=summary(rows, at_once), title_justify="left", title_style="")
    for name, justify in zip(_COLUMNS, ("left", "left", *["right"] * 4), strict=True):
        drawn.add_column(name, justify=justify, no_wrap=name != "state")  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*map(Text, cells(row)))
    return drawn


_COLUMNS = ("run", "state", "step", "last test", "steps/s", "left")


def cells(row: Row) -> tuple[str, ...]:
    """A run in words: its name, state, steps, last score, speed and time left."""
    progress, steps = row.progress, row.entry.run.config.steps
    rate, score = progress.steps_per_second, progress.score
    return (
        row.entry.run.name,
        describe(row.entry),
        f"{progress.step:,}/{steps:,}",
        "" if score is None else f"{score:.2f}",
        "" if rate is None else f"{rate:,.0f}",
        "" if row.seconds_left is None or not row.is_to_run else duration(row.seconds_left),
    )


def in_words(row: Row) -> str:
    """A run in a line, each number with its name."""
    name, state, step, score, rate, left = cells(row)
    named = [("step", step), ("last test", score), ("steps/s", rate), ("left", left)]
    return "  ".join([name, state, *(f"{title} {cell}" for title, cell in named if cell)])


def describe(entry: Entry) -> str:
    """The state of a run, and why it is so."""
    return f"{entry.state}: {entry.message}" if entry.message else entry.state


def summary(rows: Sequence[Row], at_once: int) -> str:
    """All runs in a line, e.g. "9 runs: 2 running, 3 waiting, 4 finished; about 0:12:30 left"."""
    counts = Counter(row.entry.state for row in rows)
    states = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    said = f"{len(rows)} run{'' if len(rows) == 1 else 's'}: {states}"
    left = total_seconds(rows, at_once)
    return f"{said}; about {duration(left)} left" if left else said


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, e.g. 0:12:30."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
