"""The scripts run from a checkout whose package is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_tools import QUICK, status_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
# What an installation would add to the path is taken away.
RUN = """
import pathlib, runpy, sys
sys.path = [folder for folder in sys.path[1:] if not pathlib.Path(folder, "wn_rl").is_dir()]
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", ["train", "evaluate", "compare", "benchmark"])
def test_a_script_runs_from_a_bare_checkout(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(SCRIPTS / f"{name}.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert name in said.stdout.splitlines()[0]


def test_lanes_in_processes_of_their_own_do_not_run_the_script_again(tmp_path: Path) -> None:
    """They find the package by PYTHONPATH alone."""
    flags = ["--env-id", "CartPole-v1", *QUICK[2:], "--environment.processes", "1", "--run-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    command = [sys.executable, str(SCRIPTS / "train.py"), *flags]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert status_of(tmp_path / "run")["status"] == "finished"
