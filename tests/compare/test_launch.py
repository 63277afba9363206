"""Supervising runs with a launcher that only plays; and the real processes of runs, without the training."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from grid_tools import leave, make_grid
from run_tools import wait_for

from wn_rl.commands.resume import Resume
from wn_rl.compare import launch
from wn_rl.compare.grid import Entry, Run, changed, look, prepare, share_cores
from wn_rl.compare.launch import Ended, LocalLauncher, Slot, Supervisor, local_slots, num_cores
from wn_rl.config import Role, names_of
from wn_rl.errors import UserError
from wn_rl.presets import laptop, minatar
from wn_rl.run.folder import RunFolder
from wn_rl.run.signals import StopRequest

Act = Callable[[Run], int]  # what a run does to its folder, and its exit code


def finish(run: Run) -> int:
    leave(run, "finished")
    return 0


def crash(run: Run) -> int:
    leave(run, "failed", "crashed")
    return 1


class PlayLauncher:
    """Runs end when they are looked at, as their acts say; the last act is repeated."""

    def __init__(self, acts: dict[str, list[Act]] | None = None, at_once: int = 2) -> None:
        self.acts, self.at_once = acts or {}, at_once
        self.started: list[str] = []
        self.most = 0
        self.stops: list[bool] = []
        self.going: list[Run] = []
        self.on_start: Callable[[Run], None] = lambda run: None
        self.ends_at_stop = 0  # how many stops it takes to end the runs

    def start(self, run: Run) -> None:
        self.on_start(run)
        self.started.append(run.name)
        self.going.append(run)
        self.most = max(self.most, len(self.going))

    def ended(self) -> list[Ended]:
        if len(self.stops) < self.ends_at_stop:
            return []
        over, self.going = self.going, []
        return [self._end_of(run) for run in over]

    def _end_of(self, run: Run) -> Ended:
        acts = self.acts.get(run.name, [finish])
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        return Ended(run, act(run))

    def stop(self, *, at_once: bool) -> None:
        self.stops.append(at_once)
        for run in self.going:
            self.acts[run.name] = [lambda run: leave(run, "interrupted", "saved") or 143]


def supervise(
    runs: Sequence[Run], launcher: PlayLauncher, retries: int = 1, show: Callable[[list[Entry]], object] = len
) -> list[Entry]:
    entries, stop = [look(run) for run in runs], StopRequest(counts=True)
    with stop.listening():
        Supervisor(entries, launcher, retries=retries, stop=stop).run(lambda: show(entries))
    return entries


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wn_rl.compare.launch.POLL_SECONDS", 0.001)


def test_all_runs_finish_in_the_order_of_the_grid_so_many_at_once(tmp_path: Path) -> None:
    runs, launcher = make_grid(tmp_path, seeds=5), PlayLauncher(at_once=2)
    entries = supervise(runs, launcher)
    assert [entry.state for entry in entries] == ["finished"] * 5
    assert launcher.started == [run.name for run in runs]
    assert launcher.most == 2


def test_what_is_finished_is_left_alone_and_what_is_unreadable_is_skipped(tmp_path: Path) -> None:
    done, damaged, stopped, new = runs = make_grid(tmp_path, seeds=4)
    leave(done, "finished")
    leave(stopped, "running")
    leave(damaged, "finished")
    RunFolder(damaged.path).config_file.write_text("{")
    launcher = PlayLauncher()
    entries = supervise(runs, launcher)
    assert [entry.state for entry in entries] == ["finished", "unreadable", "finished", "finished"]
    assert damaged.name in entries[1].message
    assert launcher.started == [stopped.name, new.name]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_run_that_fails_is_tried_so_often_and_stops_no_other(retries: int, tmp_path: Path) -> None:
    bad, good, other = runs = make_grid(tmp_path)
    launcher = PlayLauncher({bad.name: [crash]})
    entries = supervise(runs, launcher, retries=retries)
    assert [entry.state for entry in entries] == ["failed", "finished", "finished"]
    assert launcher.started.count(bad.name) == 1 + retries
    assert launcher.started.count(good.name) == launcher.started.count(other.name) == 1


@pytest.mark.parametrize(
    ("codes", "state", "message"),
    [
        ([1, 0], "finished", ""),
        ([1, 1], "failed", "wn-rl train: too little memory"),
        ([2, 0], "failed", "wn-rl train: too little memory"),  # what the user must mend is not tried again
        ([1, -9], "failed", "it was killed by signal 9 (Killed)"),
    ],
)
def test_why_a_run_failed_is_what_its_log_says_last(
    codes: list[int], state: str, message: str, tmp_path: Path
) -> None:
    (run,) = runs = make_grid(tmp_path, seeds=1)
    run.log.parent.mkdir(parents=True)
    run.log.write_text("run folder: x\nwn-rl train: too little memory\n")

    def end(run: Run) -> int:
        return codes.pop(0) or finish(run)

    starts = 1 if codes[0] == 2 else 2
    launcher = PlayLauncher({run.name: [end]})
    (entry,) = supervise(runs, launcher)
    assert (entry.state, entry.message) == (state, message)
    assert len(launcher.started) == starts


def test_a_run_that_cannot_be_started_stops_no_other(tmp_path: Path) -> None:
    runs, launcher = make_grid(tmp_path, seeds=2), PlayLauncher()

    def no_process(run: Run) -> None:
        if run is runs[0]:
            raise OSError(12, "Cannot allocate memory")

    launcher.on_start = no_process
    assert [entry.state for entry in supervise(runs, launcher)] == ["failed", "finished"]


def test_a_folder_that_cannot_be_looked_into_after_a_run_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, looks = make_grid(tmp_path, seeds=2), []

    def prepare(run: Run) -> bool:
        looks.append(run.name)
        if looks.count(run.name) > 1:
            raise OSError(28, "No space left on device")
        return True

    monkeypatch.setattr("wn_rl.compare.launch.prepare", prepare)
    entries = supervise(runs, PlayLauncher({runs[0].name: [lambda run: 2]}))
    assert [(entry.state, "No space left" in entry.message) for entry in entries] == [
        ("failed", True),
        ("finished", False),
    ]


def test_a_run_that_another_process_works_on_waits_for_it_and_the_rest_does_not(tmp_path: Path) -> None:
    held, free = runs = make_grid(tmp_path, seeds=2)
    launcher, seen = PlayLauncher(at_once=1), []
    with contextlib.ExitStack() as stack:
        stack.enter_context(RunFolder(held.path).lock())

        def let_go_when_the_rest_is_done(entries: list[Entry]) -> None:
            seen.append(entries[0].state)
            if entries[1].state == "finished":
                stack.close()

        entries = supervise(runs, launcher, 0, let_go_when_the_rest_is_done)
    assert "busy" in seen
    assert launcher.started == [free.name, held.name]
    assert [entry.state for entry in entries] == ["finished", "finished"]


def test_a_run_that_another_process_took_first_waits_without_having_failed(tmp_path: Path) -> None:
    """Both found the folder free; the lock let one of them in."""
    (run,) = runs = make_grid(tmp_path, seeds=1)
    other = contextlib.ExitStack()

    def too_late(run: Run) -> int:
        other.enter_context(RunFolder(run.path).lock())
        return 2

    def other_ends(entries: list[Entry]) -> None:
        if entries[0].state == "busy":
            other.close()

    (entry,) = supervise(runs, PlayLauncher({run.name: [too_late, finish]}), 0, other_ends)
    assert (entry.state, entry.failures) == ("finished", 0)


def test_a_run_that_another_process_finished_meanwhile_is_not_started(tmp_path: Path) -> None:
    first, second = runs = make_grid(tmp_path, seeds=2)

    def finish_both(run: Run) -> int:
        leave(second, "finished")
        return finish(run)

    launcher = PlayLauncher({first.name: [finish_both]}, at_once=1)
    assert [entry.state for entry in supervise(runs, launcher)] == ["finished", "finished"]
    assert launcher.started == [first.name]


def test_a_folder_that_becomes_another_run_stops_no_other(tmp_path: Path) -> None:
    first, second = runs = make_grid(tmp_path, seeds=2)

    def swap(run: Run) -> int:
        leave(second, "finished")
        (second.path / "config.json").rename(first.path / "config.json")
        return 1

    entries = supervise(runs, PlayLauncher({first.name: [swap]}, at_once=1))
    assert entries[0].state == "failed"
    assert "seed" in entries[0].message


@pytest.mark.parametrize(("signals", "stops"), [(1, [False]), (2, [False, True])])
def test_signals_stop_what_runs_and_start_nothing_more(signals: int, stops: list[bool], tmp_path: Path) -> None:
    launcher = PlayLauncher()
    launcher.ends_at_stop = signals

    def send(entries: list[Entry]) -> None:
        if len(launcher.stops) < signals:
            os.kill(os.getpid(), signal.SIGTERM)

    entries = supervise(make_grid(tmp_path, seeds=4), launcher, 3, send)
    assert launcher.stops == stops
    assert [entry.state for entry in entries] == ["interrupted", "interrupted", "waiting", "waiting"]


def test_an_error_of_our_own_leaves_no_run_behind(tmp_path: Path) -> None:
    launcher = PlayLauncher()

    def break_down(entries: list[Entry]) -> None:
        raise RuntimeError

    launcher.ends_at_stop = 1
    with pytest.raises(RuntimeError):
        supervise(make_grid(tmp_path), launcher, show=break_down)
    assert launcher.stops == [False]


# Real processes. In place of the interpreter a script is started, with the arguments that a run would have.


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Takes the shell script that stands for `python -m wn_rl.cli ...`."""

    def take(script: str) -> None:
        path = tmp_path / "interpreter"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return take


def end_of(launcher: LocalLauncher) -> list[Ended]:
    found: list[Ended] = []
    wait_for(lambda: found.extend(launcher.ended()) or found)
    return found


def test_a_new_run_is_trained_and_one_that_began_is_resumed(
    interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter('echo "$@"; exit 3')
    new, began = make_grid(tmp_path, seeds=2)
    leave(began, "interrupted")
    for run, words in [
        (new, ["train", "breakout", "--preset", "minatar", "--device", "cpu", "--run-dir", str(new.path)]),
        (began, ["resume", str(began.path), "--device", "cpu"]),
    ]:
        launcher = LocalLauncher([Slot("cpu", 1)])
        launcher.start(run)
        assert [ended.exit_code for ended in end_of(launcher)] == [3]
        printed = run.log.read_text().split()
        assert printed[:2] == ["-m", "wn_rl.cli"]
        assert [word for word in printed if word in words] == words


def test_each_run_sees_the_gpu_of_its_slot(interpreter: Callable[[str], None], tmp_path: Path) -> None:
    interpreter('echo "gpu $CUDA_VISIBLE_DEVICES"')
    runs = make_grid(tmp_path, seeds=2)
    launcher = LocalLauncher([Slot("cuda", 1, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in ("3", "5")])
    assert launcher.at_once == 2
    for run in runs:
        launcher.start(run)
    ended = end_of(launcher)
    while len(ended) < 2:
        ended += end_of(launcher)
    assert [run.log.read_text().strip() for run in runs] == ["gpu 3", "gpu 5"]


def test_a_run_goes_on_with_what_resume_takes_of_the_settings_asked_for_now() -> None:
    taken = {"environment.processes" if name == "processes" else name for name in vars(Resume(Path("x")))}
    assert set(launch._RESUMABLE) == taken - {"run", "steps"}
    assert set(launch._RESUMABLE) <= names_of(Role.CIRCUMSTANCE, Role.RECORD)


def test_runs_share_the_cores_for_their_emulators() -> None:
    assert share_cores(laptop("breakout"), 4).environment.processes == 4
    asked = changed(laptop("breakout"), {"environment.processes": 3})
    assert share_cores(asked, 4) == asked
    assert share_cores(minatar("breakout"), 4) == minatar("breakout")  # which takes no other number


@pytest.mark.parametrize(("at_once", "code"), [(False, 7), (True, -9)])
def test_runs_are_asked_to_stop_or_are_killed(
    at_once: bool, code: int, interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    (run,) = make_grid(tmp_path, seeds=1)
    launcher = LocalLauncher([Slot("cpu", 1)])
    launcher.start(run)
    wait_for(lambda: "ready" in run.log.read_text())
    launcher.stop(at_once=at_once)
    assert [ended.exit_code for ended in end_of(launcher)] == [code]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_run_ends_when_the_comparison_is_killed(tmp_path: Path) -> None:
    (run,) = make_grid(tmp_path, seeds=1)
    parent = f"""
import sys, time
from pathlib import Path
from typing import Any
from grid_tools import make_grid
from wn_rl.compare.launch import LocalLauncher, Slot
tmp = Path({str(tmp_path)!r})
script = tmp / "interpreter"
script.write_text("#!/bin/sh\\ntrap 'echo saved; exit 0' TERM; echo $$; for i in $(seq 500); do sleep 0.05; done")
script.chmod(0o755)
sys.executable = str(script)
LocalLauncher([Slot("cpu", 1)]).start(make_grid(tmp, seeds=1)[0])
time.sleep(60)
"""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tests, tests.parent)))}
    process = subprocess.Popen([sys.executable, "-c", parent], env=environment)
    wait_for(lambda: run.log.exists() and run.log.read_text().strip())
    child = int(run.log.read_text())
    assert os.getsid(child) == child  # out of reach of the terminal's Ctrl-C
    process.kill()
    process.wait()
    wait_for(lambda: "saved" in run.log.read_text())


def test_a_folder_in_use_is_not_prepared_and_one_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    run, blocked = make_grid(tmp_path, seeds=2)
    with RunFolder(run.path).lock():
        assert not prepare(run)
    (run.path / ".config.json.1.tmp").write_text("")
    assert prepare(run)
    assert [path.name for path in run.path.iterdir()] == [".lock"]
    blocked.path.write_text("")
    with pytest.raises(UserError, match="could not be made"):
        prepare(blocked)


# Slots.


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def resolve(name: str) -> torch.device:
        return torch.device("cpu") if name == "cpu" else torch.device("cuda", int(name.partition(":")[2] or 0))

    monkeypatch.setattr(launch, "resolve_device", resolve)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("wn_rl.compare.launch.num_cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_cpu_slots_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_slots("cpu", threads=1) == [Slot("cpu", 1)] * num_cores()
    monkeypatch.setattr("wn_rl.compare.launch.num_cores", lambda: 8)
    slots = [local_slots("cpu", threads=threads) for threads in (1, 3, 8, 100)]
    assert [(len(some), some[0].cores) for some in slots] == [(8, 1), (2, 4), (1, 8), (1, 8)]
    assert local_slots("cpu", threads=4, workers=5) == [Slot("cpu", 1)] * 5
    with pytest.raises(UserError, match="--gpu-share"):
        local_slots("cpu", threads=1, gpu_share=0.5)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_shared_evenly_and_no_further_than_they_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus(device: str, **options: Any) -> list[str]:
        slots = local_slots(device, threads=1, **options)
        assert all((slot.device, slot.cores) == ("cuda", 8 // len(slots)) for slot in slots)
        return [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots]

    assert gpus("auto") == ["0", "1"]
    assert gpus("cuda", gpu_share=0.5) == ["0", "1", "0", "1"]
    assert len(gpus("cuda", gpu_share=0.1)) == 8  # the cores bound it
    assert len(gpus("cuda", gpu_share=0.1, workers=3)) == 3
    assert gpus("cuda:1") == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert gpus("cuda:1") == ["7"]
    assert gpus("cuda") == ["4", "7"]
