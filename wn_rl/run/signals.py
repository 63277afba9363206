"""The signals that ask a process to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_signals_to(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within: SIGINT, SIGTERM and SIGHUP call a function instead of ending the process.

    A hangup that is ignored stays so: under nohup, a terminal that closes stops nothing.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, receive) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
