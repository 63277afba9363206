import os
import signal

import pytest

from wn_rl.run.signals import StopNow, StopRequest


@pytest.mark.parametrize(("handler", "hears"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_terminal_that_closes_stops_a_process_but_not_under_nohup(handler: signal.Handlers, hears: bool) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert bool(stop) == hears
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_stops_a_run_at_once_and_is_counted_for_many_runs() -> None:
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    stop = StopRequest(counts=True)
    with stop.listening():
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert (stop.count, stop.signal_number) == (2, signal.SIGINT)
