"""Sinks that can never stop or slow a run."""

import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wn_rl.errors import in_one_line
from wn_rl.run.sinks import Report, Row, Sink

QUEUED_CALLS = 10_000  # a sink that is this far behind is switched off
CLOSE_SECONDS = 90.0  # a sink that takes longer to close is left behind


class GuardedTracker:
    """A sink in a thread of its own. If it fails or hangs, the run says so in one line and continues.

    open_sink: makes the sink from the state, in the thread, when the first row comes. state: plain data, to which
    the step of the last row is added.
    """

    def __init__(
        self, name: str, open_sink: Callable[[dict[str, Any]], Sink], state: dict[str, Any], report: Report
    ) -> None:
        self._name, self._open_sink, self._report = name, open_sink, report
        self._state = state
        self._calls: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(QUEUED_CALLS)
        self._thread: threading.Thread | None = None
        self._is_over = False

    def open(self) -> None:
        """Open the sink before the first row."""
        state = dict(self._state)
        self._thread = threading.Thread(target=self._work, args=(state,), name=self._name, daemon=True)
        self._thread.start()

    def log(self, row: Row) -> None:
        """Hand a row to the thread."""
        copy = dict(row)
        self._hand_over(lambda sink: sink.log(copy))
        self._state["step"] = copy["step"]

    def video(self, step: int, name: str, path: Path) -> None:
        """Hand a video to the thread."""
        self._hand_over(lambda sink: sink.video(step, name, path))

    def state_dict(self) -> dict[str, Any]:
        """What the sink is opened with when the run is resumed."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Open the sink with an earlier state."""
        self._state = dict(state)

    def close(self, exit_code: int) -> None:
        """Close the sink, within CLOSE_SECONDS."""
        if self._thread is None or self._is_over:
            return
        self._hand_over(lambda sink: sink.close(exit_code))
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._switch_off(f"it did not end within {CLOSE_SECONDS:.0f} seconds")
        self._is_over = True

    def _hand_over(self, call: Callable[[Sink], None]) -> None:
        if self._is_over:
            return
        if self._thread is None:
            self.open()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._switch_off(f"it is {QUEUED_CALLS:,} calls behind")

    def _work(self, state: dict[str, Any]) -> None:
        try:
            sink = self._open_sink(state)
            while (call := self._calls.get()) is not None:
                call(sink)
        except (Exception, SystemExit) as error:  # the run continues whatever a sink raises; W&B may exit
            self._switch_off(f"{type(error).__name__}: {error}")

    def _switch_off(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            reason = in_one_line(reason)
            self._report(f"warning: {self._name} is switched off: {reason}; metrics.jsonl goes on")
