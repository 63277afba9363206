"""The signals that ask a process to stop: SIGINT, SIGTERM and SIGHUP."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopNow(KeyboardInterrupt):
    """A second signal: nothing more is saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_code = 128 + signal_number


class StopRequest:
    """True once a signal has asked to stop.

    counts: whether further signals are only counted; if not, the second one raises StopNow wherever the program
    is. A hangup that is ignored stays so: under nohup, a terminal that closes stops nothing.
    """

    def __init__(self, *, counts: bool = False) -> None:
        self._counts = counts
        self.count = 0
        self.signal_number: int | None = None  # of the last signal

    def __bool__(self) -> bool:
        return self.count > 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.signal_number = number
        if self.count > 1 and not self._counts:
            raise StopNow(number)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Context manager: signals come here instead of ending the process."""
        if threading.current_thread() is not threading.main_thread():  # which alone may say where they go
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
