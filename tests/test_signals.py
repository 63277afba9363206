import os
import signal
from collections.abc import Callable

import pytest

from wn_rl.agents.monitor import StopRequest
from wn_rl.compare.launch import StopSignals


@pytest.mark.parametrize(("handler", "hears"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
@pytest.mark.parametrize(
    ("make", "asked"),
    [(StopRequest, bool), (StopSignals, lambda stop: stop.count > 0)],
    ids=["run", "comparison"],
)
def test_a_terminal_that_closes_stops_a_process_but_not_under_nohup(
    make: Callable[[], StopRequest | StopSignals],
    asked: Callable[[StopRequest | StopSignals], bool],
    handler: signal.Handlers,
    hears: bool,
) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        stop = make()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert asked(stop) == hears
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
