"""When the clock of a training loop runs, and what it has counted."""

import resource
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
        start, first_steps, first_updates = self._start
        if now - start < self._seconds:
            return True
        self.result = {
            "steps_per_second": (steps - first_steps) / (now - start),
            "steps": steps - first_steps,
            "updates": updates - first_updates,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        return False
