"""`wn-rl compare` with real runs: killed, stopped, damaged, and given again, it ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from grid_tools import leave
from run_tools import QUICK, rows_of, start, status_of, timeless, wait_for, wn_rl, write_rows

from wn_rl.commands import compare
from wn_rl.commands._shared import parse_flags
from wn_rl.compare.grid import Run
from wn_rl.run.tensor_files import read_network_file

GRID = ["--games", "breakout", "--arms", "weight_norm", "normal:1e-4", "--seeds", "1", *QUICK]
NAMES = [
    "minatar-breakout-weight_norm-lr0.0003-seed1",
    "minatar-breakout-normal-lr0.0001-seed1",
]
NO_REPORT = ["--only", *NAMES]
ONE = [*GRID[:2], "--arms", "weight_norm", *GRID[5:]]


def complete(*arguments: str | Path) -> str:
    process = start("compare", *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    return out


def runs_of(grid: list[str], out: Path) -> tuple[Run, ...]:
    options, others = parse_flags(compare.Compare, [*grid, "--out", str(out)], return_unknown_args=True)
    return compare._runs_of(options, others)


def assert_same_results(one: Path, other: Path) -> None:
    """Every metric but those that measure time, and the best networks, bit for bit."""
    for name in NAMES:
        mine, theirs = one / "runs" / name, other / "runs" / name
        assert timeless(rows_of(mine)) == timeless(rows_of(theirs))
        (weights, metadata), (their_weights, their_metadata) = (
            read_network_file(run / "best_network.safetensors") for run in (mine, theirs)
        )
        assert metadata == their_metadata
        assert weights.keys() == their_weights.keys()
        assert all(torch.equal(weight, their_weights[key]) for key, weight in weights.items())
        assert status_of(theirs)["status"] == "finished"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    printed = complete(*GRID, "--out", out)
    assert "2 runs: 2 finished" in printed
    assert printed.strip().splitlines()[-1] == str(out / "report" / "report.html")
    return out


def test_every_run_of_the_grid_is_trained_and_reported(undisturbed: Path) -> None:
    assert all(name in (undisturbed / "report" / "report.md").read_text() for name in ("weight norm", "normal"))
    assert {str(undisturbed / "runs" / name) for name in NAMES} == set(
        json.loads((undisturbed / "report" / "configs.json").read_text())
    )
    assert sorted(path.name for path in (undisturbed / "runs").iterdir()) == sorted(NAMES)
    (grid,) = json.loads((undisturbed / "comparison.json").read_text())["grids"]
    assert [run["name"] for run in grid["runs"]] == NAMES
    assert grid["command"][:2] == ["wn-rl", "compare"]
    assert [run.name for run in runs_of(grid["command"][2:], undisturbed)] == NAMES  # the command gives the grid
    for name in NAMES:
        saved = json.loads((undisturbed / "runs" / name / "config.json").read_text())["config"]
        assert saved["run_name"] == name
        assert f"{saved['group']}-seed{saved['seed']}" == name
        assert saved["torch_threads"] == 1
        assert saved["steps"] == 600


def test_the_same_command_leaves_finished_runs_alone(undisturbed: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*")}
    assert "2 runs: 2 finished" in complete(*GRID, *NO_REPORT, "--out", undisturbed)
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "runs").rglob("*")} == files


def test_a_comparison_killed_at_random_moments_gives_the_results_of_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path
) -> None:
    out, moments = tmp_path / "victim", random.Random()
    for _ in range(2):
        process, rows = start("compare", *GRID, *NO_REPORT, "--out", out), num_rows(out)
        while process.poll() is None and num_rows(out) == rows:
            time.sleep(0.01)
        seconds = moments.uniform(0, 0.5)
        print(f"killed {seconds:.2f} s after the first row")
        time.sleep(seconds)
        process.kill()
        process.communicate()  # and at once the next one
    complete(*GRID, *NO_REPORT, "--out", out)
    assert "resuming at step" in "".join(log.read_text() for log in (out / "logs").iterdir())
    assert_same_results(undisturbed, out)


def num_rows(out: Path) -> int:
    """Of all runs together, as they stand."""
    return sum(file.read_bytes().count(b"\n") for file in out.glob("runs/*/metrics.jsonl"))


def test_ctrl_c_saves_the_runs_and_says_how_to_go_on(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "victim"
    process = start("compare", *GRID, "--workers", "1", "--out", out)
    first = out / "runs" / NAMES[0]
    wait_for((first / "metrics.jsonl").exists, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "stopped with 0 of 2 runs finished; the same command continues"
    assert status_of(first)["status"] == "interrupted"
    assert max(first.glob("checkpoints/step_*")).name == f"step_{status_of(first)['step']:012d}"
    assert not (out / "runs" / NAMES[1]).exists()
    complete(*GRID, *NO_REPORT, "--out", out)
    assert_same_results(undisturbed, out)


def test_two_invocations_at_once_share_the_work_and_both_report(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    both = [start("compare", *GRID, "--workers", "1", "--out", out) for _ in range(2)]
    printed = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert all("2 runs: 2 finished" in lines for lines in printed)
    assert all(lines.strip().splitlines()[-1] == str(out / "report" / "report.html") for lines in printed)
    assert_same_results(undisturbed, out)


def test_a_child_killed_alone_is_started_again(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "victim"
    process = start("compare", *GRID, "--only", NAMES[0], "--out", out)
    lock = out / "runs" / NAMES[0] / ".lock"
    wait_for((lock.parent / "metrics.jsonl").exists, process)
    os.kill(int(lock.read_text()), signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "failed, to be tried again: it was killed by signal 9 (Killed)" in printed
    assert timeless(rows_of(lock.parent)) == timeless(rows_of(undisturbed / "runs" / NAMES[0]))


def test_part_of_a_grid_is_recorded_with_the_command_of_the_whole(tmp_path: Path) -> None:
    name = runs_of(ONE, tmp_path)[0].name
    leave(runs_of(ONE, tmp_path)[0], "finished")
    assert wn_rl("compare", *ONE, "--only", name, "--out", str(tmp_path)) == 0
    (grid,) = json.loads((tmp_path / "comparison.json").read_text())["grids"]
    assert "--only" not in grid["command"]


def test_a_run_that_goes_on_takes_what_may_differ_from_the_command(tmp_path: Path) -> None:
    grid = [*ONE, "--out", str(tmp_path / "out")]
    process = start("compare", *grid)
    (run,) = runs_of(ONE, tmp_path / "out")
    wait_for((run.path / "metrics.jsonl").exists, process)
    process.kill()
    process.communicate()
    recorded = ["--log-period", "500", "--evaluation.video-period", "3"]
    complete(*grid, "--track", "jsonl", "tensorboard", "--keep-replay", "--checkpoint-period", "300", *recorded)
    saved = json.loads((run.path / "config.json").read_text())["config"]
    assert (saved["track"], saved["keep_replay"]) == (["jsonl", "tensorboard"], True)
    assert (run.path / "checkpoints" / "replay").is_dir()
    assert (saved["checkpoint_period"], saved["log_period"]) == (300, 200)  # a run that began keeps its rows


def test_an_unreadable_run_is_named_and_skipped_and_the_rest_is_reported(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / undisturbed.name
    assert not list(undisturbed.glob("runs/*/checkpoints/replay"))  # of many runs none is kept unasked
    shutil.copytree(undisturbed / "runs", out / "runs")
    damaged = out / "runs" / NAMES[1]
    (damaged / "config.json").write_text("{")
    assert wn_rl("compare", *GRID, "--out", str(out)) == 1
    printed = capsys.readouterr()
    assert "2 runs: 1 unreadable, 1 finished" in printed.out
    assert f"unreadable: {damaged.name}: {damaged}/config.json is damaged" in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert damaged.name in (out / "report" / "report.md").read_text()
    reported = json.loads((out / "report" / "configs.json").read_text())
    assert set(reported) == {str(out / "runs" / name) for name in NAMES[:1]}


def test_a_run_that_cannot_be_built_is_named_with_its_log_and_in_the_report_of_the_finished_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The replay asked for is larger than any memory."""
    grid = ["--games", "breakout", "seaquest", *ONE[2:], "--learning.replay-capacity", "99999999999"]
    finished, unbuildable = runs_of(grid, tmp_path)
    leave(finished, "finished")
    write_rows(finished.path, [{"step": 600, "eval/return_mean": 3.0, "eval/episodes": 5}])
    assert wn_rl("compare", *grid, "--out", str(tmp_path)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "memory" in line
    assert str(unbuildable.log) in line
    report = (tmp_path / "report" / "report.md").read_text()
    (named,) = [line for line in report.splitlines() if line.startswith(f"| {unbuildable.path} |")]
    assert "ended before it had a config.json" in named
    assert "memory" in named


def test_a_dry_run_prints_the_runs_their_steps_and_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [*GRID, "--seeds", "2", "--workers", "2", "--dry-run", "--out", str(out)]
    assert wn_rl("compare", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == NAMES
    assert all(line.endswith("step 0/600") for line in lines[:-1])
    assert lines[-1] == "4 runs: 4 waiting"
    assert not out.exists()
    first = runs_of(GRID, out)[0]
    leave(first, "finished")
    write_rows(first.path, [{"step": 600, "seconds": 60.0}])
    assert wn_rl("compare", *arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 runs: 3 waiting, 1 finished; about 0:01:30 left"
    assert sorted(path.name for path in out.iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--games", "brekout"], "breakout"),
        (["--games", "atori/breakout"], "atari"),
        (["--games"], "at least one game"),
        (["--games", "breakout", "Breakout"], "twice"),
        (["--arms", "normal:-1e-4"], "'-1e-4'"),
        (["--arms", "normal", "normal:1e-4"], "twice"),
        (
            ["--arms", "normal", "weight_norm+override=head=normal"],
            "the layers of minatar_cnn are conv, dense, output",
        ),
        (["--arms"], "at least one"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--first-seed", "-1"], "--first-seed must be at least 0"),
        (["--seed", "3"], "--seeds and --first-seed"),
        (["--optimizer.learning_rate=1"], "--arms"),
        (["--parameterization", "normal"], "--arms"),
        (["--stps", "3"], "--stps"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--network.log-scale", "3"], "--network.log-scale"),
        (["--workers", "0"], "--workers"),
        (["--preset", "papers"], "paper"),
        (["--retries", "-1"], "--retries"),
        (["--gpu-share", "0"], "--gpu-share"),
        (["--gpu-share", "0.5", "--device", "cpu"], "--gpu-share needs a CUDA device"),
        (["--launcher", "ray", "--workers", "2"], "--workers"),
        (["--launcher", "ray", "--device", "cuda:1"], "--device must be auto, cpu or cuda"),
        (["--launcher", "slurm"], "choose from local, ray"),
        (["--device", "gpu"], "no device 'gpu'"),
        (["--evaluation.period", "601"], "--evaluation.period 601 gives a run of 600 steps no evaluation"),
        (["--accelerate", "cuda_graph"], "--accelerate cuda_graph needs a CUDA device"),
        (["--network.name", "nature_cnn"], "nature_cnn needs frames of at least 36x36"),
        (["--only", NAMES[0][:-1] + "9"], f"did you mean {NAMES[0]}?"),
        (["--out", __file__], f"--out {__file__} is a file: name a folder"),
        (["stray"], "stray"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    assert wn_rl("compare", *GRID, "--out", str(tmp_path / "out"), *flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]
    assert sorted(os.listdir(tmp_path)) == before


def test_a_changed_grid_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    last = runs_of(GRID, out)[-1]
    leave(last, "interrupted")
    assert wn_rl("compare", *GRID, "--out", str(out), "--steps", "700") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{last.path} was started with steps 600, and this command asks for 700" in line
    assert sorted(path.name for path in out.iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("flags", "suite_and_preset"),
    [
        (["--games", "breakout"], [("atari", "laptop")]),
        (["--games", "breakout", "--preset", "minatar"], [("minatar", "minatar")]),
        (["--games", "minatar/breakout", "classic/CartPole"], [("minatar", "minatar"), ("classic", "classic")]),
        (["--games", "CartPole-v1", "--suite", "gymnasium"], [("gymnasium", "vectors")]),
    ],
)
def test_games_take_the_defaults_of_their_suite(
    flags: list[str], suite_and_preset: list[tuple[str, str]], tmp_path: Path
) -> None:
    shared = ["--arms", "normal", "--seeds", "1", "--steps", "500", "--evaluation.period", "250"]
    configs = [run.config for run in runs_of([*flags, *shared, "--device", "cpu"], tmp_path)]
    assert [(config.suite, config.preset) for config in configs] == suite_and_preset
    assert {config.steps for config in configs} == {500}
