"""How far the runs of a comparison are and how long they still take, read from their folders."""

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_rl.compare.launch import Entry
from wn_rl.runs import RunFolder

_TAIL_BYTES = 32_768  # of metrics.jsonl: tens of rows


@dataclass(frozen=True)
class Progress:
    """How far a run is, by its metrics. steps_per_second: recent, tests and checkpoints counted in."""

    step: int = 0
    score: float | None = None  # mean return of the last test
    steps_per_second: float | None = None


@dataclass(frozen=True)
class Row:
    """A run as it stands. seconds_left: by its own speed or by that of its like; None without any."""

    entry: Entry
    progress: Progress
    seconds_left: float | None

    @property
    def is_to_run(self) -> bool:
        """Whether it will take time yet."""
        return self.entry.state in ("running", "waiting", "busy")


class Survey:
    """Looks at the folders of runs, again and again; files that have not changed are not read again."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._read: dict[Path, tuple[tuple[int, int], Progress]] = {}  # file: its time and size, what it says

    def rows(self) -> list[Row]:
        """The runs as they stand, in the order of the grid."""
        progresses = [self._progress(RunFolder(entry.run.path).metrics_file) for entry in self._entries]
        rates = _Rates(zip(self._entries, progresses, strict=True))
        return [
            Row(entry, progress, _seconds_left(entry, progress, rates))
            for entry, progress in zip(self._entries, progresses, strict=True)
        ]

    def _progress(self, metrics: Path) -> Progress:
        try:
            status = metrics.stat()
        except OSError:
            return Progress()
        version = (status.st_mtime_ns, status.st_size)
        if self._read.get(metrics, (None,))[0] != version:
            self._read[metrics] = (version, read_progress(metrics))
        return self._read[metrics][1]


def read_progress(metrics: Path) -> Progress:
    """How far the run is whose metrics.jsonl this is. What cannot be read is passed over."""
    rows = _last_rows(metrics)
    timed = [(row["step"], row["seconds"]) for row in rows if _has_numbers(row, "step", "seconds")]
    scores = [row["eval/return_mean"] for row in rows if _has_numbers(row, "eval/return_mean")]
    steps = [row["step"] for row in rows if _has_numbers(row, "step")]
    return Progress(steps[-1] if steps else 0, scores[-1] if scores else None, _steps_per_second(timed))


def total_seconds(rows: Iterable[Row], at_once: int) -> float | None:
    """The time until all that is to run has ended, so many at once; None if the speed of one is not known."""
    left = [row.seconds_left for row in rows if row.is_to_run]
    known = [seconds for seconds in left if seconds is not None]
    if len(known) < len(left):
        return None
    return max([sum(known) / at_once, *known], default=0.0)


class _Rates:
    """Steps per second of runs, for those that have none of their own."""

    def __init__(self, runs: Iterable[tuple[Entry, Progress]]) -> None:
        self._by_kind: dict[tuple[str, ...], list[float]] = {}
        for entry, progress in runs:
            if progress.steps_per_second is not None:
                for kind in self._kinds(entry):
                    self._by_kind.setdefault(kind, []).append(progress.steps_per_second)

    def of(self, entry: Entry) -> float | None:
        """The harmonic mean over runs of its game, or else of its suite: equal steps, times added up."""
        known = (self._by_kind[kind] for kind in self._kinds(entry) if kind in self._by_kind)
        return next((statistics.harmonic_mean(rates) for rates in known), None)

    def _kinds(self, entry: Entry) -> tuple[tuple[str, ...], ...]:
        config = entry.run.config
        return (config.suite, config.game), (config.suite,)


def _seconds_left(entry: Entry, progress: Progress, rates: _Rates) -> float | None:
    rate = progress.steps_per_second or rates.of(entry)
    return None if rate is None else max(0, entry.run.config.steps - progress.step) / rate


def _steps_per_second(timed: Sequence[tuple[int, float]]) -> float | None:
    """Between the first and the last of (step, seconds); from the start of the run if there is only one."""
    if not timed:
        return None
    (first_step, first_seconds), (step, seconds) = timed[0] if len(timed) > 1 else (0, 0.0), timed[-1]
    return (
        (step - first_step) / (seconds - first_seconds) if seconds > first_seconds and step > first_step else None
    )


def _last_rows(file: Path) -> list[dict[str, Any]]:
    """The whole rows at the end of a file of JSON lines; damaged ones are left out."""
    try:
        with file.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES)
            stream.seek(start)
            lines = stream.read().split(b"\n")
    except OSError:
        return []
    return [row for line in lines[1 if start else 0 : -1] if isinstance(row := _parse(line), dict)]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _has_numbers(row: dict[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), int | float) for name in names)
