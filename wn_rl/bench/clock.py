"""When the clock of a training loop runs, and what it has counted."""

import json
import resource
import sys
import time


class TimeIsUp(Exception):
    """Ends a loop that is measured."""


class SteadyState:
    """Counts steps and updates from the first call at or after `begin` steps, for so many seconds."""

    def __init__(self, begin: int, seconds: float) -> None:
        self._begin, self._seconds = begin, seconds
        self._start: tuple[float, int, int] | None = None
        self.result: dict[str, float] = {}

    def steps_since_start(self, steps: int) -> int:
        """Steps since the clock was started; 0 before."""
        return 0 if self._start is None else steps - self._start[1]

    def __call__(self, steps: int, updates: int) -> bool:
        """Whether to go on."""
        now = time.perf_counter()
        if self._start is None:
            if steps >= self._begin:
                self._start = now, steps, updates
            return True
        if now - self._start[0] < self._seconds:
            return True
        self.result = _counted(self._start, (now, steps, updates))
        return False


class Turns:
    """Counts steps and updates when it is this loop's turn, from `begin` steps on.

    Then, and after each turn, the loop waits for a line on standard input: for how many seconds to go on. It
    answers in a line of JSON; the end of the input ends it. A turn is a whole number of rounds, of so many steps.
    """

    def __init__(self, begin: int, steps_of_round: int) -> None:
        self._begin, self._steps_of_round = begin, steps_of_round
        self._start: tuple[float, int, int] | None = None
        self._seconds = 0.0

    def __call__(self, steps: int, updates: int) -> bool:
        """Whether to go on."""
        now = time.perf_counter()
        if self._start is None:
            if steps < self._begin:
                return True
            print(json.dumps("ready"), flush=True)
        else:
            start, first_steps, _ = self._start
            if now - start < self._seconds or (steps - first_steps) % self._steps_of_round:
                return True
            print(json.dumps(_counted(self._start, (now, steps, updates))), flush=True)
        line = sys.stdin.readline()
        if not line:
            return False
        self._seconds = float(line)
        self._start = time.perf_counter(), steps, updates
        return True


def _counted(start: tuple[float, int, int], end: tuple[float, int, int]) -> dict[str, float]:
    """From the time, steps and updates at both ends."""
    seconds, steps, updates = (after - before for before, after in zip(start, end, strict=True))
    return {
        "steps_per_second": steps / seconds,
        "steps": steps,
        "updates": updates,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
