"""The record of a run, and sinks that fail, hang, or continue after a resume."""

import contextlib
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wn_rl.commands.doctor import describe
from wn_rl.errors import say
from wn_rl.registry import TRACKERS, UnknownNameError
from wn_rl.run import guard, sinks, tracking, wandb_sink
from wn_rl.run.guard import GuardedTracker
from wn_rl.run.sinks import RunInfo
from wn_rl.run.tracking import Trackers, make_trackers


def make(run_dir: Path, *names: str, report: Any = say, total_steps: int = 10_000) -> Trackers:
    config = {"game": "breakout", "learning": {"batch": 32}}
    return make_trackers(
        names, RunInfo(run_dir, config, "a run", "atari-breakout", ("atari",), total_steps, report)
    )


def training_row(step: int, **changes: Any) -> dict[str, Any]:
    row = {
        "step": step,
        "frames": 4 * step,
        "train/return": 3.2,
        "loss": 0.0123,
        "q_mean": 1.23,
        "epsilon": 0.85,
        "frames_per_second": 1520.0,
        "seconds": step / 100,
    }
    return {**row, **changes}


def test_row(step: int) -> dict[str, Any]:
    return {"step": step, "eval/return_mean": 5.5, "eval/return_std": 1.0, "eval/episodes": 30, "held_out_q": 2.0}


test_row.__test__ = False  # type: ignore[attr-defined]


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _wandb_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of the machine."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)


# The record


def test_rows_are_written_at_once_keys_in_order_and_numbers_finite(tmp_path: Path) -> None:
    """Also if jsonl is not among the names."""
    tracker = make(tmp_path)
    tracker.log({"step": 1, "loss": float("nan"), "frames": 4, "q_mean": float("-inf"), "train/return": None})
    [row] = lines_of(tmp_path)  # there before any close
    assert list(row.items()) == [
        ("step", 1),
        ("loss", None),
        ("frames", 4),
        ("q_mean", None),
        ("train/return", None),
    ]
    tracker.close(0)


@pytest.mark.parametrize("tail", [b'{"step": 3}\n', b'{"st'], ids=["longer", "torn"])
def test_a_resumed_record_equals_an_uninterrupted_one(tmp_path: Path, tail: bytes) -> None:
    for name, killed in (("whole", False), ("killed", True)):
        tracker = make(tmp_path / name)
        tracker.log(training_row(1))
        tracker.log(training_row(2))
        if killed:
            state = json.loads(json.dumps(tracker.state_dict()))
            with (tmp_path / name / "metrics.jsonl").open("ab") as file:
                file.write(tail)
            tracker = make(tmp_path / name)
            tracker.load_state_dict(state)
        tracker.log(training_row(3))
        tracker.close(0)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed


def test_a_run_killed_before_its_first_checkpoint_begins_its_record_anew(tmp_path: Path) -> None:
    make(tmp_path).log(training_row(1))
    assert len(lines_of(tmp_path)) == 1
    make(tmp_path)
    assert len(lines_of(tmp_path)) == 1  # opening alone loses nothing
    make(tmp_path).log(training_row(7))
    assert [row["step"] for row in lines_of(tmp_path)] == [7]


def test_rows_wait_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    tracker = make(tmp_path, report=said.append)
    tracker.log(training_row(1))

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "write_all", half)
        tracker.log(training_row(2))
        tracker.log(training_row(3))
        state = json.loads(json.dumps(tracker.state_dict()))
    assert len(said) == 1
    assert "No space left" in said[0]
    resumed = make(tmp_path)
    resumed.load_state_dict(state)
    resumed.log(training_row(4))
    resumed.close(0)
    assert [row["step"] for row in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean wandb"):
        make(tmp_path, "wandbb")
    with pytest.raises(UnknownNameError, match=", ".join(TRACKERS)):
        make(tmp_path, "mlflow")


# Sinks that fail


class Failing:
    """Raises in one method."""

    def __init__(self, method: str, error: BaseException | None = None) -> None:
        self.method = method
        self.error = error or RuntimeError("two\nlines")
        self._do("open")

    def _do(self, method: str) -> None:
        if method == self.method:
            raise self.error

    def log(self, row: Any) -> None:
        self._do("log")

    def video(self, step: int, name: str, path: Path) -> None:
        self._do("video")

    def close(self, exit_code: int) -> None:
        self._do("close")


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), SystemExit("two lines")], ids=repr)
@pytest.mark.parametrize("method", ["open", "log", "video", "close"])
def test_a_sink_that_raises_is_switched_off_with_one_line(
    tmp_path: Path, method: str, error: BaseException
) -> None:
    said: list[str] = []
    tracker = GuardedTracker("poor", lambda state: Failing(method, error), {"id": "abc"}, said.append)
    for step in range(3):
        tracker.log(training_row(step))
        tracker.video(step, "gameplay", tmp_path / "a.mp4")
    tracker.close(0)
    tracker.log(training_row(4))
    assert len(said) == 1
    assert "poor" in said[0]
    assert "two lines" in said[0]
    assert "\n" not in said[0]
    assert tracker.state_dict()["step"] >= 2  # a resumed run opens the sink again
    assert tracker.state_dict()["id"] == "abc"


class Hanging(Failing):
    """Takes no row before it is released."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__("")
        self._released = released

    def log(self, row: Any) -> None:
        self._released.wait(300)


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """Holds a `Hanging` sink until the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(
    ("rows", "reason"), [(1, "it did not end within 0 seconds"), (10, "it is 3 calls behind")]
)
def test_a_sink_that_hangs_is_switched_off_and_the_run_never_waits(
    rows: int, reason: str, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(guard, "QUEUED_CALLS", 3)
    said: list[str] = []
    tracker = GuardedTracker("slow", lambda state: Hanging(hang), {}, said.append)
    for step in range(rows):
        tracker.log(training_row(step))
    tracker.close(0)
    assert said == [f"warning: slow is switched off: {reason}; metrics.jsonl goes on"]


# Console


def test_in_a_pipe_lines_are_plain(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_tracking as t\n"
        "tracker = t.make(Path(sys.argv[1]), 'console', total_steps=150_000)\n"
        "for step in (12_000, 13_000): tracker.log(t.training_row(step))\n"
        "tracker.log(t.test_row(13_000)); tracker.close(0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert done.stdout.isprintable() or set(done.stdout) & set(map(chr, range(32))) == {"\n"}
    assert "12,000/150,000" in lines[0]
    for part in ("1,520", "return", "3.20", "loss", "0.0123", "1.23", "epsilon", "0.85"):
        assert part in lines[0]
    assert "left" in lines[1]
    assert "5.50" in lines[2]
    assert "30" in lines[2]
    assert done.stderr == ""


def on_a_terminal(code: str, *arguments: str, columns: int = 80, stops: bool = False) -> list[str]:
    """The lines that a child shows on a terminal, each state of them, without what moves the cursor."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"},
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as screen:  # OSError: it has ended
        while chunk := screen.read(65536):
            shown += chunk
            if stops and b"evaluation: return" in shown:
                child.send_signal(signal.SIGINT)
                stops = False
    child.wait(300)
    text = shown.decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # cursor hidden, cursor shown
    assert "Traceback" not in text
    text = text.replace("\x1b[?25h", "\r<cursor>\r")
    return re.sub(r"\x1b\[\??[\d;]*[a-zA-Z]", "", text).replace("\r", "\n").splitlines()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("end", ["tracker.close(130)", "sys.exit()"])  # a second Ctrl-C closes no sink
def test_on_a_terminal_live_lines_move_with_time_and_the_cursor_comes_back(
    tmp_path: Path, end: str, columns: int
) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_tracking as t\n"
        "info = t.RunInfo(Path(sys.argv[1]), {}, 'a', 'b', (), 50_000_000, t.say)\n"
        "tracker = t.make_trackers(['console'], info)\n"
        "tracker.log(t.training_row(12_000_000)); tracker.log(t.test_row(2_000)); t.say('a warning')\n"
        "info.activity.doing, info.activity.step, info.activity.best = 'evaluating', 12_345_678, 5.5\n"
        f"time.sleep(1.5); {end}"
    )
    lines = on_a_terminal(code, str(tmp_path), str(Path(__file__).parent), columns=columns)
    live = [line for line in lines if line.startswith("evaluating")]
    assert {"0:00:00", "0:00:01"} <= {word for line in live for word in line.split()}
    assert all("25% 12,345,678/50,000,000" in line for line in live)
    numbers = [line for line in lines if line.startswith("epsilon 0.850  best 5.50  return 3.20  frames/s 1,520")]
    assert numbers
    assert max(map(len, [*live, *numbers])) <= columns - 2  # room for ^C
    assert "step 2,000  evaluation: return 5.50 (standard deviation 1.00), episodes 30" in lines
    assert "a warning" in lines


def test_a_run_shows_what_it_does_and_ends_with_a_line_after_ctrl_c(tmp_path: Path) -> None:
    from run_tools import QUICK  # which a child that imports this module cannot

    train = ["train", "breakout", *QUICK, "--steps", "1000000", "--evaluation.steps", "5000", "--run-dir", "run"]
    code = f"from wn_rl.cli import main; main({train!r})"
    lines = [line for line in on_a_terminal(code, stops=True) if line.strip()]
    assert {"training", "evaluating"} <= {line.split()[0] for line in lines}
    left = lines[lines.index("<cursor>") + 1 :]
    assert [line.split()[0] for line in left] == ["epsilon", "saved"]


def test_the_time_left_comes_from_the_rows_of_this_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = make(tmp_path, "console", total_steps=10_000)
    for step, seconds in ((5_000, 1_000.0), (6_000, 1_100.0)):  # resumed: 1,000 steps in 100 s
        tracker.log(training_row(step, seconds=seconds))
    tracker.close(0)
    assert "left 0:06:40" in capsys.readouterr().out.splitlines()[-1]


# TensorBoard


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_is_read_back_and_a_resume_hides_the_rows_after_the_checkpoint(tmp_path: Path) -> None:
    tracker = make(tmp_path, "tensorboard")
    tracker.log(training_row(1, loss=1.0))
    tracker.log(training_row(2, loss=2.0, q_mean=None))
    state = json.loads(json.dumps(tracker.state_dict()))
    tracker.log(training_row(3, loss=30.0))
    tracker.close(1)
    time.sleep(1.1)  # event files are named, and so ordered, by the second
    tracker = make(tmp_path, "tensorboard")
    tracker.load_state_dict(state)
    tracker.log(training_row(3, loss=3.0))
    tracker.close(0)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [event.step for event in events.Scalars("q_mean")] == [1, 3]
    assert "step" not in events.Tags()["scalars"]
    assert b'"batch": 32' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    hparams = [events.SummaryMetadata(f"_hparams_/{part}") for part in ("session_start_info", "experiment")]
    start, experiment = (HParamsPluginData.FromString(part.plugin_data.content) for part in hparams)
    assert start.session_start_info.hparams["learning.batch"].number_value == 32
    metrics = {metric.name.tag for metric in experiment.experiment.metric_infos}
    assert metrics == {"eval/return_mean", "eval/best"}


# Weights & Biases


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What W&B's own reader finds of a kind in an offline run's folder."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    return [record[kind] for record in map(json.loads, output.splitlines()) if record["type"] == kind]


def history(folder: Path) -> list[dict[str, Any]]:
    """Rows in an offline run's folder, without W&B's own keys."""
    rows = [record["item"] for record in records(folder, "history")]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def folders(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("wandb/offline-run-*"))


def test_an_offline_run_is_read_back_row_for_row(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = make(tmp_path, "wandb", report=said.append)
    tracker.log(training_row(1))
    tracker.log(training_row(2, **{"train/return": None}))
    tracker.log(test_row(2))
    tracker.close(0)
    (folder,) = folders(tmp_path)
    rows = [{key: value for key, value in row.items() if value is not None} for row in lines_of(tmp_path)]
    assert history(folder) == rows
    assert [line for line in said if f"wandb sync {folder}" in line]
    assert not [line for line in said if line.startswith("warning")]


def test_without_a_home_wandb_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_CONFIG_DIR")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError: a user without an entry, as in containers
    assert describe()["wandb key"].startswith("none")
    tracker = make(tmp_path, "wandb")
    tracker.log(training_row(1))
    tracker.close(0)
    assert [history(folder) for folder in folders(tmp_path)] == [[training_row(1)]]


def test_rows_that_a_full_disk_kept_from_wandb_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sink, "rows_in", lambda folder: [{}])
    said: list[str] = []
    tracker = make(tmp_path, "wandb", report=said.append)
    for step in (1, 2, 3):
        tracker.log(training_row(step))
    tracker.close(0)
    assert any("wandb kept 1 of 3 rows (a full disk?); metrics.jsonl has all" in line for line in said)


@pytest.mark.parametrize(("key", "words"), [("", "no key is"), ("short", "WANDB_API_KEY invalid")])
def test_without_a_key_the_run_is_offline_and_says_so(
    key: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", key)
    said: list[str] = []
    tracker = make(tmp_path, "wandb", report=said.append)
    tracker.log(training_row(1))
    tracker.close(0)
    assert len(folders(tmp_path)) == 1
    assert len([line for line in said if words in line and "offline" in line]) == 1
    assert describe()["wandb key"].startswith(f"none: {words}" if key else "none")


def test_a_server_out_of_reach_leaves_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_sink, "INIT_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    said: list[str] = []
    tracker = make(tmp_path, "wandb", report=said.append)
    tracker.log(training_row(1))
    assert folders(tmp_path) == []  # it did not wait
    tracker.close(0)
    assert [history(folder) for folder in folders(tmp_path)] == [[training_row(1)]], said


def wandb_core() -> int:
    """The process id of the W&B service that this process started."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        name, rest = entry.read_text().split("(", 1)[1].rsplit(")", 1)
        if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid():
            return int(entry.parent.name)
    raise AssertionError("no W&B service")


IN_THE_RUN = """
tracker.log(t.training_row(1))
while not list(Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")): time.sleep(0.05)
send()
"""
IN_ITS_START = """
import wandb; init = wandb.init
def signalled(**settings):
    send(); time.sleep(0.3)
    return init(**settings)
wandb.init = signalled
tracker.log(t.training_row(1))
"""
WITHOUT_A_HANDLE = "t.wandb_sink._service_process = lambda wandb: None" + IN_THE_RUN


def run_with_a_signalled_service(run_dir: Path, when: str, name: str) -> tuple[int, str]:
    """Exit code and standard error of a run of three rows whose W&B process gets a signal."""
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "import test_tracking as t; t.guard.CLOSE_SECONDS = t.wandb_sink.EXIT_SECONDS = 2.0\n"
        "def send():\n"
        "    core = t.wandb_core(); print(core, flush=True); os.kill(core, getattr(t.signal, sys.argv[3]))\n"
        f"tracker = t.make(Path(sys.argv[1]), 'wandb')\n{when}\n"
        "for step in (2, 3): tracker.log(t.training_row(step)); time.sleep(0.1)\n"
        "tracker.close(0)"
    )
    command = [sys.executable, "-c", code, str(run_dir), str(Path(__file__).parent), name]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    core = int(child.stdout.readline())
    try:
        child.wait(timeout=300)
    finally:
        child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(core, signal.SIGKILL)  # a stopped one may live on, and hold the pipes
        _, complaint = child.communicate()
    return child.returncode, complaint


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("when", "name"),
    [
        (IN_THE_RUN, "SIGKILL"),
        (IN_ITS_START, "SIGKILL"),
        pytest.param(IN_THE_RUN, "SIGSTOP", marks=pytest.mark.slow),
        (WITHOUT_A_HANDLE, "SIGSTOP"),
    ],
    ids=["killed", "killed in its start", "stopped", "stopped without a handle"],
)
def test_a_run_outlives_its_wandb_process(tmp_path: Path, when: str, name: str) -> None:
    code, complaint = run_with_a_signalled_service(tmp_path, when, name)
    assert code == 0
    assert [row["step"] for row in lines_of(tmp_path)] == [1, 2, 3]
    assert complaint.count("wandb is switched off") == 1
    assert "Traceback" not in complaint


def test_another_wandb_without_the_handle_of_its_process_is_known() -> None:
    assert wandb_sink._service_process(SimpleNamespace(setup=object)) is None


def test_sinks_are_opened_with_the_state_of_before() -> None:
    seen: list[dict[str, Any]] = []

    def open_sink(state: dict[str, Any]) -> sinks.Sink:
        seen.append(dict(state))
        return Failing("")

    tracker = GuardedTracker("fine", open_sink, {"id": "new"}, lambda line: None)
    tracker.load_state_dict({"id": "old", "step": 9})
    tracker.log(training_row(10))
    tracker.close(0)
    assert seen == [{"id": "old", "step": 9}]
