"""The MinAtar table of docs/results.md, made again: nine runs, one to two hours on one core. `make test-slow`."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from wn_rl.commands import compare
from wn_rl.commands._shared import parse_flags

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_minatar.py"
# Means over three seeds of the last 100 training games after 500k steps; a random policy has 0.5, 0.1 and 3.
LEAST = {"breakout": 6.0, "seaquest": 0.8, "space_invaders": 22.0}


@pytest.mark.slow
def test_the_minatar_table_can_be_made_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    means = {
        game: float(mean)
        for game, mean in re.findall(r"^\| (\w+) \| 500,000 \|.*\| ([\d.]+) \|$", done.stdout, re.M)
    }
    assert means.keys() == LEAST.keys()
    for game, least in LEAST.items():
        assert means[game] > least, means


def test_the_table_is_made_of_the_runs_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave_rows(command: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        for run in compare._runs_of(*parse_flags(compare.Compare, command[4:], return_unknown_args=True)):
            run.path.mkdir(parents=True)
            assert run.config.preset == "minatar"
            rows = [
                {"step": 200_000, "evaluation/return": 50.0},
                {"step": 200_000, "loss": 0.1, "train/return_last_100": run.config.seed},
                {"step": run.config.steps, "loss": 0.1, "train/return_last_100": 2 * run.config.seed},
            ]
            (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", leave_rows)
    monkeypatch.setattr(sys, "argv", ["reproduce_minatar.py", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| game | steps | seed 1 | seed 2 | seed 3 | mean |"
    assert rows[2:4] == [
        "| breakout | 200,000 | 1.0 | 2.0 | 3.0 | 2.0 |",
        "| breakout | 500,000 | 2.0 | 4.0 | 6.0 | 4.0 |",
    ]
    assert len(rows) == 8


def test_the_exit_code_is_that_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    monkeypatch.setattr(sys, "argv", ["reproduce_minatar.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stop.value.code == 3
