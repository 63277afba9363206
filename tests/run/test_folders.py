"""What a run does about links, a folder that moves away, a poor disk, and environments that end themselves."""

import contextlib
import dataclasses
import errno
import fcntl
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from resume_tools import command
from run_tools import QUICK, wn_rl

from wn_rl.envs import make, processes
from wn_rl.envs.gymnasium_lanes import describe
from wn_rl.presets import vectors
from wn_rl.run import files, monitor
from wn_rl.run.loading import load_run
from wn_rl.run.tensor_files import read_network_file

TRAIN = ["train", "breakout", *QUICK, "--track", "jsonl", "--device", "cpu"]
MODULE = """
import os, shutil, sys, time
from pathlib import Path
from threading import Lock
import gymnasium, numpy as np
from gymnasium import spaces
Path("imported").touch()
class Own(Exception):
    __str__ = None
class Env(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
    total = 0
    def reset(self, *, seed=None, options=None):
        self.age = 0
        return np.zeros(3, np.float32), {}
    def step(self, action):
        Env.total += 1
        self.age += 1
        if Env.total > 400:
            WHAT
        return np.zeros(3, np.float32), 1.0, self.age == 9, False, {}
gymnasium.register("Odd-v0", Env)
"""


def odd_run(folder: Path, what: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A run, in a process, whose environment does a thing after 400 steps, some of which are before training."""
    (folder / "odd.py").write_text(MODULE.replace("WHAT", what))
    arguments = ["train", "--env-id", "odd:Odd-v0", *QUICK[2:], "--track", "jsonl", "--run-dir", "run", *more]
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, cwd=folder)


def test_a_folder_of_a_run_imports_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert odd_run(tmp_path, "pass").returncode == 0
    (tmp_path / "imported").unlink()
    assert wn_rl("export", "run", "--out", "agent", "--no-onnx") == 0  # it takes the shapes from config.json
    capsys.readouterr()
    for name in ("evaluate", "play", "resume"):
        assert wn_rl(name, "run", *(["--steps", "700"] if name == "resume" else [])) == 2
        said = capsys.readouterr().err
        assert "needs the module odd, which is not imported: if you trust it, use wn-rl --import odd ..." in said
        assert said.count("\n") == 1
    with pytest.raises(ValueError, match="needs the module odd"):
        make("gymnasium", "odd:Odd-v0", vectors("CartPole-v1").environment, num_envs=1, seed=0)
    assert not (tmp_path / "imported").exists()
    arguments = command("--import", "odd", "evaluate", "run", "--episodes", "1")
    assert subprocess.run(arguments, cwd=tmp_path, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("os.chdir('/')", 0, "finished 600 steps in run"),
        ("shutil.rmtree('run', ignore_errors=True)", 1, "config.json was removed while the run went on"),
        ("os.path.exists('run/metrics.jsonl') and os.unlink('run/metrics.jsonl')", 1, "was removed or cut"),
        ("os.path.exists('run/checkpoints') and shutil.rmtree('run/checkpoints')", 0, "finished"),
        ("sys.exit(0)", 1, "SystemExit 0; the last checkpoint is kept"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
        ("os._exit(7)", 1, "the process of lane 0 to 3 has died (exit code 7); the last checkpoint is kept"),
    ],
)
def test_what_an_environment_does_to_its_run_is_noticed(what: str, code: int, said: str, tmp_path: Path) -> None:
    processes = ["--environment.processes", str(int("_exit" in what))]
    done = odd_run(tmp_path, what, "--steps", "600", "--keep-replay", *processes)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr or "_exit" not in what
    assert said in done.stderr.splitlines()[-1]
    if code == 0:
        arguments = command("--import", "odd", "resume", "run", "--steps", "610")
        assert subprocess.run(arguments, cwd=tmp_path, timeout=120).returncode == 0


def test_files_of_others_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert wn_rl(*TRAIN, "--keep-replay", "--run-dir", str(run)) == 0
    (run / "checkpoints" / "replay" / "notes.txt").write_text("mine")
    (run / "videos").mkdir()
    for name in (".step_000000000300.12345.mp4", ".notes.mp4"):  # the first is of a process that was killed
        (run / "videos" / name).touch()
    assert wn_rl("resume", str(run), "--steps", "700", "--keep-replay", "False") == 0
    assert "notes.txt" in {path.name for path in run.rglob("*")}
    assert [path.name for path in (run / "videos").iterdir()] == [".notes.mp4"]
    (run / "evaluations.jsonl").symlink_to(tmp_path / "outside")
    assert wn_rl("report", str(run), "--out", str(tmp_path / "report"), "--no-videos") == 0


def test_a_best_network_that_a_full_disk_refused_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, str]] = []

    def write(path: Path, tensors: Any, metadata: dict[str, str], real: Any = monitor.write_network_file) -> None:
        calls.append(metadata)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, tensors, metadata)

    monkeypatch.setattr(monitor, "write_network_file", write)
    assert wn_rl(*TRAIN, "--run-dir", "run") == 0
    assert len(calls) > 1
    assert calls[0] == calls[1] == {**read_network_file(Path("run/best_network.safetensors"))[1]} or len(calls) > 2
    assert load_run("run").name.startswith("best network")


def test_a_run_that_was_killed_in_its_first_write_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.12345.tmp").write_text("{")
    assert wn_rl(*TRAIN, "--run-dir", str(tmp_path / "run")) == 0
    assert not list((tmp_path / "run").glob(".config*"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
def test_a_disk_that_cannot_lock_or_sync_folders_is_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def fsync(file: int, real: Callable[[int], None] = os.fsync) -> None:
        refuse() if os.path.isdir(f"/proc/self/fd/{file}") else real(file)

    files.say_once.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os, "fsync", fsync)
    assert wn_rl(*TRAIN, "--run-dir", str(tmp_path / "run")) == 0
    said = capsys.readouterr().err
    assert said.count("this disk cannot lock files") == said.count("this disk cannot sync folders") == 1


def test_a_spec_that_changed_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert odd_run(tmp_path, "pass", "--keep-replay").returncode == 0
    (tmp_path / "odd.py").write_text(MODULE.replace("WHAT", "pass").replace("(3,", "(5,"))
    for name, *more in (["evaluate"], ["resume", "--steps", "700"]):
        arguments = command("--import", "odd", name, "run", *more)
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == 2
        assert "environment.spaces is 'float32 [3] times 1, 2 actions', not 'float32 [5] times 1" in done.stderr
        assert "Traceback" not in done.stderr


HANG = "time.sleep(1000)"


@pytest.fixture
def play_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function that plays lanes in two processes whose environment does a thing, and another to go on."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "ANSWER_SECONDS", 3.0)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    gymnasium.registry.pop("Odd-v0", None)
    describe.cache_clear()
    with contextlib.ExitStack() as stack:

        def start(what: str) -> Callable[[], None]:
            (tmp_path / "odd.py").write_text(MODULE.replace("WHAT", what))
            importlib.import_module("odd")
            rules = dataclasses.replace(vectors("odd:Odd-v0").environment, processes=2)
            environments = make("gymnasium", "odd:Odd-v0", rules, num_envs=2, seed=0)
            stack.callback(environments.close)
            environments.reset()

            def play() -> None:
                for _ in range(1000):
                    environments.send(np.zeros(2, np.int64))
                    environments.recv()

            return play

        yield start


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        (HANG, ChildProcessError, "lane 0 gave no answer within 3 seconds"),
        ("os._exit(7)", ChildProcessError, "the process of lane 0 has died (exit code 7)"),
        ("os.fork() or time.sleep(30); os._exit(7)", ChildProcessError, "has died (exit code 7)"),
        ("raise FileNotFoundError(2, 'no level')", FileNotFoundError, "no level"),
        ("e = ValueError('no'); e.lock = Lock(); raise e", RuntimeError, "environment raised ValueError: no"),
        ("raise Own(1)", RuntimeError, "environment raised odd.Own: <exception str() failed>"),
        ("sys.exit(3)", RuntimeError, "environment raised SystemExit: 3"),
    ],
)
def test_what_ends_a_lane_is_said(play_odd: Any, what: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        play_odd(what)()


def test_after_an_interrupted_step_no_old_answer_is_taken_for_a_new_one(play_odd: Any) -> None:
    play = play_odd("Env.total == 401 and time.sleep(2)")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            play()
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(RuntimeError, match="the environments are closed"):
        play()


def test_lanes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(MODULE.replace("WHAT", "Path(f'lane{os.getpid()}').touch(); " + HANG))
    arguments = ["train", "--env-id", "odd:Odd-v0", *QUICK[2:], "--steps", "5000", "--evaluation.period", "0"]
    more = ["--num-envs", "2", "--environment.processes", "2", "--run-dir", "run"]
    with open(tmp_path / "said", "w") as said:
        run = subprocess.Popen(command(*arguments, *more), stdout=said, stderr=said, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while len(lanes := list(tmp_path.glob("lane*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        run.kill()
        run.wait()
    assert len(lanes) == 2
    deadline = time.monotonic() + 20
    while alive := [lane for lane in lanes if Path("/proc", lane.name[4:]).exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
    assert "Traceback" not in (tmp_path / "said").read_text()
