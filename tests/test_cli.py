"""The command line in process: what a user types, sees and gets wrong."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from run_tools import QUICK, rows_of, status_of, timeless, wn_rl

from wn_rl import commands
from wn_rl.cli import COMMANDS
from wn_rl.envs import games
from wn_rl.registry import SUITES


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished MinAtar run, with a video of its second test."""
    folder = tmp_path / "run"
    assert wn_rl("train", "breakout", *QUICK, "--evaluation.video-period", "2", "--run-dir", str(folder)) == 0
    return folder


def test_a_run_leaves_config_metrics_checkpoints_and_video(run: Path) -> None:
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["game"] == "breakout"
    assert record["config"]["optimizer"]["learning_rate"] == 3e-4
    assert record["config"]["torch_threads"] == 1
    assert {"torch", "python", "git_commit"} <= set(record["versions"])
    assert "no GPU used, torch 2" in record["machine"]
    rows = rows_of(run)
    training = [row for row in rows if "loss" in row]
    tests = [row for row in rows if "eval/return_mean" in row]
    assert [row["step"] for row in training] == [200, 400, 600]
    assert [row["step"] for row in tests] == [300, 600]
    assert {
        "step", "frames", "train/return", "loss", "q_mean", "epsilon", "frames_per_second",
        "norm_v/dense", "norm_g/dense",
    } <= set(training[-1])  # fmt: skip
    assert {"eval/return_mean", "eval/episodes", "held_out_q"} <= set(tests[-1])
    assert training[0]["epsilon"] == pytest.approx(1 - 0.9 * 100 / 200)
    assert training[-1]["loss"] > 0
    assert status_of(run)["status"] == "finished"
    assert list((run / "videos").glob("*.mp4"))
    assert list((run / "checkpoints").glob("step_*"))


def test_evaluate_and_play(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert wn_rl("evaluate", str(run), "--episodes", "4", "--num-envs", "2", "--random-policy") == 0
    printed = capsys.readouterr().out
    assert "best network" in printed
    assert "random policy" in printed
    results = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [len(result["returns"]) for result in results] == [4, 4]
    assert [(result["num_envs"], result["steps"], result["max_episode_frames"]) for result in results] == [
        (2, None, 10_000), (2, None, 10_000),
    ]  # fmt: skip
    assert wn_rl("evaluate", str(run), "--protocol", "epoch") == 0
    result = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert (result["num_envs"], result["steps"], result["max_episode_frames"]) == (1, 100, 10_000)
    capsys.readouterr()
    video = tmp_path / "game.mp4"
    assert wn_rl("play", str(run), "--video", str(video), "--network", "latest", "--device", "auto") == 0
    assert video.stat().st_size > 1000


def test_what_cannot_be_played_or_evaluated_is_one_clear_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, arguments, says in [
        ("play", ["--device", "gpu"], "no device 'gpu'"),
        ("play", ["--epsilon", "2"], "--epsilon must be between 0 and 1"),
        ("play", ["--seed", "-1"], "seed must be at least 0"),
        ("play", ["--network", "worst"], "invalid choice 'worst' for argument '--network'"),
        ("play", ["--video", str(run)], "is a folder"),
        ("play", ["--video", str(run / "config.json" / "game.mp4")], "game.mp4"),
        ("evaluate", ["--num-envs", "0"], "--num-envs must be from 1 to 4096, got 0"),
        ("evaluate", ["--episodes", "0"], "--episodes must be at least 1, got 0"),
        ("evaluate", ["--epsilon", "2"], "--epsilon must be between 0 and 1, got 2"),
        ("evaluate", ["--protocol", "epoch", "--episodes", "5"], "--episodes is of --protocol nature"),
    ]:
        capsys.readouterr()
        assert wn_rl(command, str(run), *arguments) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert says in line
    assert not (run / "evaluations.jsonl").exists()


def test_every_command_is_a_module_and_every_module_a_command() -> None:
    modules = {path.stem for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    assert set(COMMANDS) == modules


@pytest.mark.parametrize(("columns", "width"), [("60", 60), (None, 100)])
def test_games_are_wrapped_to_the_terminal(
    columns: str | None, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.__stdout__", None)  # no terminal that has a width of its own
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert wn_rl("games") == 0
    printed = capsys.readouterr().out
    assert width - 25 < max(map(len, printed.splitlines())) <= width
    assert printed.split() == [word for suite in SUITES for word in (f"{suite}:", *games(suite))]


def test_what_is_to_be_installed_first_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, really = {"Box2D": True, "minatar": False}, importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: (found[name] or None) if name in found else really(name)
    )
    assert wn_rl("games", "--suite", "minatar") == 0
    assert capsys.readouterr().out.startswith('minatar (first pip install "wn-rl[minatar]"): asterix ')
    assert wn_rl("doctor") == 0
    assert re.search(r'minatar preset +pip install "wn-rl\[minatar\]"', capsys.readouterr().out)
    assert "LunarLander-v3" in games("gymnasium")
    found["Box2D"] = False
    assert "LunarLander-v3" not in games("gymnasium")


def test_doctor_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("doctor") == 0
    assert "torch" in capsys.readouterr().out
    assert wn_rl("--help") == 0
    overview = capsys.readouterr().out
    assert all(f"  {command}" in overview for command in COMMANDS)
    for command in COMMANDS:
        assert wn_rl(command, "--help") == 0
        assert f"usage: wn-rl {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "brekout"], "breakout"),
        (["train", "breakout", "--suite", "minator"], "minatar"),
        (["train", "breakout", "--stps", "5"], "did you mean --steps?"),
        (["train", "breakout", "--learning-rate", "1"], "did you mean --optimizer.learning-rate?"),
        (["train", "breakout", "--replay-capacity", "1"], "did you mean --learning.replay-capacity?"),
        (["train", "breakout", "--steps", "-5"], "--steps must be at least 1, got -5"),
        (["train", "breakout", "--steps", "many"], "--steps"),
        (["train", "breakout", "--learning.discount", "2"], "between 0 and 1"),
        (["train", "breakout", "--preset", "papers"], "paper"),
        (["train", "breakout", "--track", "mlflow"], "mlflow"),
        (["train"], "GAME"),
        (["train", "breakout", "--learning.replay-capacity", "99999999999"], "memory"),
        (["trian", "breakout"], "train"),
        (["resume", "no/such/run"], "no/such/run"),
        (["evaluate", "no/such/run"], "no/such/run"),
        (["play", "no/such/run"], "no/such/run"),
        (["games", "--suite", "atary"], "atari"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    assert wn_rl(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]
    assert sorted(os.listdir(tmp_path)) == before  # nothing was created


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_cuda_on_a_cpu_box_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("train", "breakout", "--device", "cuda") == 2
    assert "--device cpu" in capsys.readouterr().err


def test_a_finished_run_is_neither_overwritten_nor_lengthened_without_its_replay(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, says in (
        (("train", "seaquest", *QUICK, "--run-dir", str(run)), f"wn-rl resume {run}"),
        (("resume", str(run), "--steps", "100"), "can only grow"),
        (("resume", str(run), "--steps", "2000"), "--keep-replay"),
    ):
        capsys.readouterr()
        assert wn_rl(*arguments) == 2
        assert says in capsys.readouterr().err


def test_a_run_with_its_replay_grows_to_what_a_longer_run_would_be(tmp_path: Path) -> None:
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert wn_rl("train", "breakout", *QUICK, "--keep-replay", "--run-dir", str(short)) == 0
    assert wn_rl("resume", str(short), "--steps", "2000") == 0
    assert wn_rl("train", "breakout", *QUICK, "--steps", "2000", "--keep-replay", "--run-dir", str(whole)) == 0
    assert timeless(rows_of(short)) == timeless(rows_of(whole))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resume", "run", "--steps", "ten"), "--steps: 'ten' is neither None nor INT"),
        (("train", "breakout", "--network.log-scale", "x"), "--network.log-scale: 'x' is neither None nor FLOAT"),
    ],
)
def test_what_is_no_number_for_a_flag_that_may_have_none(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl(*arguments) == 2
    command = f"wn-rl {arguments[0]}"
    assert capsys.readouterr().err == f"{command}: Error parsing {said} (see {command} --help)\n"


def test_modules_to_import_are_named_in_either_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WN_RL_IMPORT", "")
    assert wn_rl("--import=json", "--import", "re", "games") == 0
    assert wn_rl("--import") == 2
    assert capsys.readouterr().err.strip() == "wn-rl --import: name a module"
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert wn_rl("--import", "broken_module", "games") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == "wn-rl --import: division by zero"
    assert any("broken_module.py" in line for line in said)
