"""Supervising runs with a launcher that only plays; and the real processes of runs, without the training."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from grid_tools import leave, make_grid
from run_tools import wn_rl

from wn_rl import machine
from wn_rl.commands.compare import share_cores
from wn_rl.commands.resume import Resume
from wn_rl.compare import launch
from wn_rl.compare.grid import Entry, Run, changed, look
from wn_rl.compare.launch import Ended, LocalLauncher, Slot, Supervisor, local_slots, num_cores, prepare
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

    def __init__(self, acts: dict[str, list[Act]] | None = None, room: int = 2) -> None:
        self.acts, self.room = acts or {}, room
        self.started: list[str] = []
        self.most = 0
        self.stops: list[bool] = []
        self.going: list[Run] = []
        self.on_start: Callable[[Run], None] = lambda run: None
        self.patient = False  # whether runs go on until they are stopped

    def has_room(self) -> bool:
        return len(self.going) < self.room

    def start(self, run: Run) -> None:
        self.on_start(run)
        self.started.append(run.name)
        self.going.append(run)
        self.most = max(self.most, len(self.going))

    def ended(self) -> list[Ended]:
        if self.patient:
            return []
        over, self.going = self.going, []
        return [self._end_of(run) for run in over]

    def _end_of(self, run: Run) -> Ended:
        acts = self.acts.get(run.name, [finish])
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        return Ended(run, act(run))

    def stop(self, *, at_once: bool) -> None:
        self.stops.append(at_once)
        self.patient = False
        for run in self.going:
            self.acts[run.name] = [lambda run: leave(run, "interrupted", "saved") or 143]


def supervise(
    runs: tuple[Run, ...], launcher: PlayLauncher, *, retries: int = 1, stop: StopRequest | None = None
) -> list[Entry]:
    entries = [look(run) for run in runs]
    Supervisor(entries, launcher, retries=retries, stop=stop or StopRequest(counts=True)).run(lambda: None)
    return entries


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wn_rl.compare.launch.POLL_SECONDS", 0.001)


def test_all_runs_finish_in_the_order_of_the_grid_so_many_at_once(tmp_path: Path) -> None:
    runs, launcher = make_grid(tmp_path, seeds=5), PlayLauncher(room=2)
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


def test_a_run_that_fails_once_finishes(tmp_path: Path) -> None:
    runs = make_grid(tmp_path)
    launcher = PlayLauncher({runs[1].name: [crash, finish]})
    assert [entry.state for entry in supervise(runs, launcher)] == ["finished"] * 3


def test_what_the_user_must_mend_is_not_tried_again_and_the_log_says_why(tmp_path: Path) -> None:
    runs = make_grid(tmp_path, seeds=1)
    runs[0].log.parent.mkdir(parents=True)
    runs[0].log.write_text("run folder: x\nwn-rl train: too little memory\n")
    launcher = PlayLauncher({runs[0].name: [lambda run: 2]})
    (entry,) = supervise(runs, launcher, retries=5)
    assert (entry.state, entry.message) == ("failed", "wn-rl train: too little memory")
    assert len(launcher.started) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(28, "No space left"), 1), (FileNotFoundError(2, "gone"), 2), (ValueError("no"), 2)],
)
def test_only_what_trying_again_cannot_mend_ends_with_the_code_of_a_mistake(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr("wn_rl.commands.games.run", fail)
    assert wn_rl("games") == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_kill_is_named(tmp_path: Path) -> None:
    runs = make_grid(tmp_path, seeds=1)
    (entry,) = supervise(runs, PlayLauncher({runs[0].name: [lambda run: -9]}), retries=0)
    assert entry.message == "it was killed by signal 9 (Killed)"


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
    launcher = PlayLauncher(room=1)
    entries = [look(run) for run in runs]
    with contextlib.ExitStack() as stack:
        stack.enter_context(RunFolder(held.path).lock())
        seen = []

        def let_go_when_the_rest_is_done() -> None:
            seen.append(entries[0].state)
            if entries[1].state == "finished":
                stack.close()

        Supervisor(entries, launcher, retries=0, stop=StopRequest(counts=True)).run(let_go_when_the_rest_is_done)
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

    launcher = PlayLauncher({run.name: [too_late, finish]})
    entries = [look(run) for run in runs]

    def other_ends() -> None:
        if entries[0].state == "busy":
            other.close()

    Supervisor(entries, launcher, retries=0, stop=StopRequest(counts=True)).run(other_ends)
    assert (entries[0].state, entries[0].failures) == ("finished", 0)


def test_a_run_that_another_process_finished_meanwhile_is_not_started(tmp_path: Path) -> None:
    first, second = runs = make_grid(tmp_path, seeds=2)

    def finish_both(run: Run) -> int:
        leave(second, "finished")
        return finish(run)

    launcher = PlayLauncher({first.name: [finish_both]}, room=1)
    assert [entry.state for entry in supervise(runs, launcher)] == ["finished", "finished"]
    assert launcher.started == [first.name]


def test_a_folder_that_becomes_another_run_stops_no_other(tmp_path: Path) -> None:
    first, second = runs = make_grid(tmp_path, seeds=2)

    def swap(run: Run) -> int:
        leave(second, "finished")
        (second.path / "config.json").rename(first.path / "config.json")
        return 1

    entries = supervise(runs, PlayLauncher({first.name: [swap]}, room=1))
    assert entries[0].state == "failed"
    assert "seed" in entries[0].message


@pytest.mark.parametrize(("signals", "stops"), [(1, [False]), (2, [False, True])])
def test_signals_stop_what_runs_and_start_nothing_more(signals: int, stops: list[bool], tmp_path: Path) -> None:
    runs, launcher, stop = make_grid(tmp_path, seeds=4), PlayLauncher(), StopRequest(counts=True)
    launcher.patient = True
    entries = [look(run) for run in runs]
    sent = 0

    def send() -> None:
        nonlocal sent
        if sent < signals:
            sent += 1
            os.kill(os.getpid(), signal.SIGTERM)
            launcher.patient = sent < signals

    stop_of = launcher.stop

    def stop_unless_patient(*, at_once: bool) -> None:
        patient = launcher.patient
        stop_of(at_once=at_once)
        launcher.patient = patient

    launcher.stop = stop_unless_patient  # type: ignore[method-assign]
    with stop.listening():
        Supervisor(entries, launcher, retries=3, stop=stop).run(send)
    assert launcher.stops == stops
    assert [entry.state for entry in entries] == ["interrupted", "interrupted", "waiting", "waiting"]
    assert (stop.count, stop.signal_number) == (signals, signal.SIGTERM)


def test_an_error_of_our_own_leaves_no_run_behind(tmp_path: Path) -> None:
    launcher = PlayLauncher()

    def break_down() -> None:
        raise RuntimeError

    launcher.patient = True
    supervisor = Supervisor(
        [look(run) for run in make_grid(tmp_path)], launcher, retries=0, stop=StopRequest(counts=True)
    )
    with pytest.raises(RuntimeError):
        supervisor.run(break_down)
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


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


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
        launcher = LocalLauncher([Slot("cpu")])
        launcher.start(run)
        assert [ended.exit_code for ended in end_of(launcher)] == [3]
        printed = run.log.read_text().split()
        assert printed[:2] == ["-m", "wn_rl.cli"]
        assert [word for word in printed if word in words] == words


def test_each_run_sees_the_gpu_of_its_slot(interpreter: Callable[[str], None], tmp_path: Path) -> None:
    interpreter('echo "gpu $CUDA_VISIBLE_DEVICES"')
    runs = make_grid(tmp_path, seeds=2)
    launcher = LocalLauncher([Slot("cuda", "3"), Slot("cuda", "5")])
    for run in runs:
        assert launcher.has_room()
        launcher.start(run)
    assert not launcher.has_room()
    ended = end_of(launcher)
    while len(ended) < 2:
        ended += end_of(launcher)
    assert [run.log.read_text().strip() for run in runs] == ["gpu 3", "gpu 5"]
    assert launcher.has_room()


def test_a_run_goes_on_with_what_resume_takes_of_the_settings_asked_for_now(
    interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter('echo "$@"')
    (run,) = make_grid(tmp_path, seeds=1)
    leave(run, "interrupted")
    launcher = LocalLauncher([Slot("cpu")])
    asked = {"log_period": 7, "accelerate": "compile", "track": ("jsonl", "wandb"), "keep_replay": True}
    launcher.start(dataclasses.replace(run, config=changed(run.config, asked)))
    end_of(launcher)
    words = run.log.read_text().split()
    for expected in (["--accelerate", "compile"], ["--keep-replay", "True"], ["--track", "jsonl", "wandb"]):
        start = words.index(expected[0])
        assert words[start : start + len(expected)] == expected
    assert "--log-period" not in words
    taken = {
        "environment.emulator_threads" if name == "emulator_threads" else name for name in vars(Resume(run.path))
    }
    assert set(launch._RESUMABLE) == taken - {"run", "steps"}
    assert set(launch._RESUMABLE) <= names_of(Role.CIRCUMSTANCE, Role.RECORD)


def test_runs_share_the_cores_for_their_emulators() -> None:
    assert share_cores(laptop("breakout"), 4).environment.emulator_threads == 4
    asked = changed(laptop("breakout"), {"environment.emulator_threads": 3})
    assert share_cores(asked, 4) == asked
    assert share_cores(minatar("breakout"), 4) == minatar("breakout")  # which takes no other number


@pytest.mark.parametrize(("at_once", "code"), [(False, 7), (True, -9)])
def test_runs_are_asked_to_stop_or_are_killed(
    at_once: bool, code: int, interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    (run,) = make_grid(tmp_path, seeds=1)
    launcher = LocalLauncher([Slot("cpu")])
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
from grid_tools import make_grid
from wn_rl.compare.launch import LocalLauncher, Slot
tmp = Path({str(tmp_path)!r})
script = tmp / "interpreter"
script.write_text("#!/bin/sh\\ntrap 'echo saved; exit 0' TERM; echo $$; for i in $(seq 500); do sleep 0.05; done")
script.chmod(0o755)
sys.executable = str(script)
LocalLauncher([Slot("cpu")]).start(make_grid(tmp, seeds=1)[0])
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

    monkeypatch.setattr(machine, "resolve_device", resolve)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("wn_rl.compare.launch.num_cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_workers_are_as_many_as_the_cores_have_threads_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_slots("cpu", threads=1) == [Slot("cpu")] * num_cores()
    monkeypatch.setattr("wn_rl.compare.launch.num_cores", lambda: 8)
    assert [len(local_slots("cpu", threads=threads)) for threads in (1, 3, 8, 100)] == [8, 2, 1, 1]
    assert len(local_slots("cpu", threads=4, workers=5)) == 5
    with pytest.raises(UserError, match="--gpu-share"):
        local_slots("cpu", threads=1, gpu_share=0.5)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_shared_evenly_and_no_further_than_they_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_slots("auto", threads=1) == [Slot("cuda", "0"), Slot("cuda", "1")]
    halves = local_slots("cuda", threads=1, gpu_share=0.5)
    assert [slot.gpu for slot in halves] == ["0", "1", "0", "1"]
    assert len(local_slots("cuda", threads=1, gpu_share=0.1)) == 8  # the cores bound it
    assert len(local_slots("cuda", threads=1, gpu_share=0.1, workers=3)) == 3
    assert local_slots("cuda:1", threads=1) == [Slot("cuda", "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert local_slots("cuda:1", threads=1) == [Slot("cuda", "7")]
    assert [slot.gpu for slot in local_slots("cuda", threads=1)] == ["4", "7"]
