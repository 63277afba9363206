"""Weights & Biases as its users expect it: where a run goes, under which name, and that nothing of it is lost."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from run_tools import QUICK, wn_rl
from test_tracking import _wandb_alone, folders, history, make, records, training_row  # noqa: F401

from wn_rl.commands.doctor import describe
from wn_rl.run import wandb_sink
from wn_rl.run.tracking import make_trackers
from wn_rl.run.training import run_info

KEY = "0" * 40
SETTINGS = ("TAGS", "NAME", "RUN_GROUP", "JOB_TYPE", "NOTES", "ENTITY", "PROJECT")


class Server(BaseHTTPRequestHandler):
    """As much of W&B's server as a run talks to. lines: the history of each run."""

    lines: ClassVar[dict[str, list[str]]] = {}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if rows := content.get("files", {}).get("wandb-history.jsonl"):
            self.lines[self.path.split("/")[-2]][rows["offset"] :] = rows["content"]
        data = json.dumps(self.answer(content.get("query", ""), content.get("variables", {}))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, query: str, variables: dict[str, Any]) -> Any:
        name = variables.get("name", "")
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        lines = self.lines.get(name, [])
        bucket = {"id": "1", "name": name, "displayName": name, "config": "{}", "historyLineCount": len(lines)}
        if "upsertBucket(" in query:
            is_new = self.lines.setdefault(name, lines) is lines and not lines
            return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": is_new}}}
        bucket |= {"summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]"}
        bucket |= {"historyTail": json.dumps(lines[-1:]), "tags": [], "wandbConfig": '{"t": 1}'}
        if "RunResumeStatus" in query:
            return {"data": {"model": {**project, "bucket": bucket if name in self.lines else None}}}
        if "createRunFiles(" in query:
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}}
        return {"data": {}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A W&B server at the address that W&B has for this test."""
    monkeypatch.setattr(Server, "lines", {})
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", None),
        ({}, "machine api.wandb.ai", "online"),
        ({}, "machine elsewhere", None),
        ({}, "default", "online"),
        ({"WANDB_BASE_URL": "http://127.0.0.1:8080"}, "machine 127.0.0.1:8080", "online"),
        ({"WANDB_BASE_URL": "http://127.0.0.1:8080"}, "machine 127.0.0.1:8081", None),
        ({"WANDB_API_KEY": KEY}, "", "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_MODE": "disabled"}, "machine api.wandb.ai", "disabled"),
    ],
    ids=str,
)
def test_wandb_itself_finds_its_key_and_its_mode(
    environment: dict[str, str], netrc: str, mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_text(f"{netrc}\n login user\n password {KEY}\n" if netrc else "")
    for name, value in {"NETRC": str(tmp_path / "netrc"), **environment}.items():
        monkeypatch.setenv(name, value)
    assert wandb_sink.wandb_mode() == mode
    shown = {None: "none", "online": "configured"}.get(mode, f"not used: W&B is set to {mode}")
    assert describe()["wandb key"].startswith(shown)


@pytest.mark.parametrize(
    ("seconds", "saved"), [(0.0, 5), pytest.param(2.5, 0, marks=pytest.mark.slow), (2.5, 5)], ids=str
)
def test_rows_that_a_kill_lost_are_sent_by_the_resumed_run(tmp_path: Path, seconds: float, saved: int) -> None:
    code = (
        "import json, os, sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "import test_tracking as t; run_dir = Path(sys.argv[1]); tracker = t.make(run_dir, 'wandb')\n"
        "for step in range(1, 8):\n"
        "    tracker.log(t.training_row(step))\n"
        f"    if step == {saved}: (run_dir / 'state').write_text(json.dumps(tracker.state_dict()))\n"
        f"time.sleep({seconds}); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=300).returncode == -signal.SIGKILL
    time.sleep(1.1)  # W&B names folders by the second
    tracker = make(tmp_path, "wandb")
    if saved:
        tracker.load_state_dict(json.loads((tmp_path / "state").read_text()))
    for step in range(saved + 1, 10):
        tracker.log(training_row(step, frames_per_second=1.0))
    tracker.close(0)
    steps = [row["step"] for folder in folders(tmp_path) for row in history(folder)]
    assert Counter(steps) == Counter(range(1, 10))
    [(first, _), *others] = wandb_sink.sessions_of(tmp_path)
    assert len({run_id for _, run_id in wandb_sink.sessions_of(tmp_path)}) == 1
    (tmp_path / "wandb" / f"{first.name}-link").symlink_to(first)
    assert len(wandb_sink.sessions_of(tmp_path)) == 1 + len(others)
    [file] = first.glob("*.wandb")
    file.rename(tmp_path / "outside")
    file.symlink_to(tmp_path / "outside")
    assert wandb_sink.rows_in(first) is None  # the link is not followed


def test_rows_that_a_server_lacks_are_sent_again(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    """And those that it has are not, although the run repeats them."""
    state, said = dict[str, Any](), list[str]()
    for steps in (range(1, 6), range(4, 8)):
        tracker = make(tmp_path, "wandb", report=said.append)
        tracker.load_state_dict(state)
        for step in steps:
            tracker.log(training_row(step))
            if step == 3:
                state = json.loads(json.dumps(tracker.state_dict()))
        tracker.close(1)
        [lines] = Server.lines.values()
        if len(lines) == 5:
            del lines[2:]  # as if the process had been killed before these were on their way
        sys.modules["wandb"].teardown()
        time.sleep(1.1)
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 8)), said


def test_names_are_ours_unless_the_environment_has_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wn_rl.commands.train import read_flags
    from wn_rl.run.folder import RunFolder

    config = read_flags(["breakout", "--suite", "minatar", "--network.log-scale", "3"]).config
    info = run_info(config, RunFolder(tmp_path / "mine"), {"versions": {"torch": "2"}, "machine": "m"})
    for given in ({}, {name: f"{name.lower()}-" + "x" * 40 for name in SETTINGS}):
        for name, value in given.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        tracker = make_trackers(["wandb"], info)
        tracker.log(training_row(1))
        tracker.close(0)
        run = records(folders(tmp_path / "mine")[-1], "run")[-1]
        own = {
            "PROJECT": "wn-rl",
            "NAME": "mine",
            "RUN_GROUP": "minatar-breakout-weight_norm-log_scale-3.0-lr0.0003",
        }
        keys = {"RUN_GROUP": "run_group", "NAME": "display_name", "JOB_TYPE": "job_type"}
        for name in ("PROJECT", "NAME", "RUN_GROUP", "JOB_TYPE", "NOTES", "ENTITY"):
            assert run.get(keys.get(name, name.lower())) == given.get(name, own.get(name)), name
        tags = [given["TAGS"]] if given else []
        assert run["tags"] == [*tags, "minatar", "breakout", "weight_norm"]
        sys.modules["wandb"].teardown()
        time.sleep(1.1)
    assert run["config"]["update"]["versions"] == {"torch": "2"}


@pytest.mark.slow
def test_a_comparison_sends_its_networks_and_an_evaluation_its_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_NAME", "of one run")
    grid = ("--games", "breakout", "--arms", "normal", "--seeds", "2", "--out", "a grid", "--track", "wandb")
    assert wn_rl("compare", *grid, *QUICK, "--device", "cpu") == 0
    command = capsys.readouterr().err.split("upload the offline runs with: wandb sync ")[1].splitlines()[0]
    found = subprocess.run(["sh", "-c", f"printf '%s\n' {command}"], capture_output=True, text=True, check=True)
    trained = [Path(line) for line in found.stdout.splitlines()]
    assert [folder.name[:12] for folder in trained] == ["offline-run-"] * 2
    sessions = [records(folder, "run")[-1] for folder in trained]
    names = [f"minatar-breakout-normal-lr0.0001-seed{seed}" for seed in (1, 2)]
    assert [(run["display_name"], run["job_type"]) for run in sessions] == [(name, "a grid") for name in names]
    [artifact] = records(trained[0], "artifact")
    assert (artifact["type"], sorted(artifact["aliases"])) == ("model", ["best", "latest"])
    monkeypatch.delenv("WANDB_NAME")
    assert wn_rl("evaluate", f"a grid/runs/{names[0]}", "--episodes", "2", "--random-policy") == 0
    _, evaluated = folders(Path("a grid/runs") / names[0])
    assert history(evaluated)[0].keys() >= {
        f"evaluate/{name}/return_mean" for name in ("best_network", "random_policy")
    }
    assert "loss" in str(records(evaluated, "summary"))
    assert f"wandb sync '{evaluated.absolute()}'" in capsys.readouterr().err
