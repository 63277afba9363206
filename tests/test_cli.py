"""The command line in process: what a user types, sees and gets wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from resume_tools import assert_same_run
from run_tools import QUICK, rows_of, status_of, wn_rl, write_rows

from wn_rl import commands
from wn_rl.cli import COMMANDS
from wn_rl.commands.train import read_flags
from wn_rl.envs import games
from wn_rl.registry import SUITES


def make_run(folder: Path) -> Path:
    """A finished MinAtar run, with a video of its second evaluation."""
    assert wn_rl("train", "breakout", *QUICK, "--evaluation.video-period", "2", "--run-dir", str(folder)) == 0
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run for one test."""
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests only look at."""
    return make_run(tmp_path_factory.mktemp("finished") / "run")


def test_a_run_leaves_config_metrics_checkpoints_and_video(finished: Path) -> None:
    run = finished
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["game"] == "breakout"
    assert record["config"]["optimizer"]["learning_rate"] == 3e-4
    assert record["config"]["torch_threads"] == 1
    assert {"torch", "python", "git_commit"} <= set(record["versions"])
    assert "no GPU used, torch 2" in record["machine"]
    rows = rows_of(run)
    training = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "eval/return_mean" in row]
    assert [row["step"] for row in training] == [200, 400, 600]
    assert [row["step"] for row in evaluations] == [300, 600]
    assert {
        "step", "frames", "train/return", "loss", "q_mean", "epsilon", "frames_per_second",
        "norm_v/dense", "norm_g/dense",
    } <= set(training[-1])  # fmt: skip
    assert {"eval/return_mean", "eval/episodes", "held_out_q"} <= set(evaluations[-1])
    assert training[0]["epsilon"] == pytest.approx(1 - 0.9 * 100 / 200)
    assert training[-1]["loss"] > 0
    assert status_of(run)["status"] == "finished"
    assert list((run / "videos").glob("*.mp4"))
    assert list((run / "checkpoints").glob("step_*"))


@pytest.mark.parametrize("words", [["train", "--help"], ["games"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_has_enough_ends_a_command_quietly(words: list[str], buffered: str) -> None:
    read, write = os.pipe()
    os.close(read)  # before anything is written
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    command = [sys.executable, "-m", "wn_rl", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, timeout=300)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_evaluate_and_play(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert wn_rl("evaluate", str(run), "--episodes", "4", "--num-envs", "2", "--random-policy") == 0
    printed = capsys.readouterr().out
    assert "best network" in printed
    assert "random policy" in printed
    results = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [len(result["returns"]) for result in results] == [4, 4]
    assert [(result["num_envs"], result["max_episode_frames"]) for result in results] == [(2, 10_000)] * 2
    video = tmp_path / "game.mp4"
    assert wn_rl("play", str(run), "--video", str(video), "--network", "latest", "--device", "auto") == 0
    assert video.stat().st_size > 1000


@pytest.mark.parametrize(
    ("command", "flags", "says"),
    [
        ("play", ["--device", "gpu"], "no device 'gpu'"),
        ("play", ["--epsilon", "2"], "--epsilon must be between 0 and 1, got 2"),
        ("play", ["--seed", "-1"], "seed must be at least 0"),
        ("play", ["--network", "worst"], "invalid choice 'worst' for argument '--network'"),
        ("play", ["--video", "RUN"], "is a folder"),
        ("play", ["--video", "RUN/config.json/game.mp4"], "config.json"),
        ("evaluate", ["--num-envs", "0"], "--num-envs must be at least 1, got 0"),
        ("evaluate", ["--episodes", "0"], "--episodes must be at least 1, got 0"),
        ("evaluate", ["--epsilon", "2"], "--epsilon must be between 0 and 1, got 2"),
        ("resume", ["--steps", "100"], "can only grow"),
    ],
)
def test_what_a_run_cannot_do_is_one_clear_line(
    command: str, flags: list[str], says: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl(command, str(finished), *(flag.replace("RUN", str(finished)) for flag in flags)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert not (finished / "evaluations.jsonl").exists()


def test_an_exported_agent_has_no_other_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = str(run.with_name("agent"))
    assert wn_rl("export", str(run), "--out", agent, "--no-onnx") == 0
    for command in ("evaluate", "play"):
        capsys.readouterr()
        assert wn_rl(command, agent, "--network", "latest") == 2
        assert "which has one network" in capsys.readouterr().err


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


@pytest.mark.parametrize("is_installed", [True, False])
def test_games_that_need_box2d_are_listed_where_it_is_installed(
    is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: is_installed or None)
    assert ("LunarLander-v3" in games("gymnasium")) == is_installed


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
        (["train", "breakout", "--steps", "-5"], "--steps must be at least 1, got -5"),
        (["train", "breakout", "--steps", "many"], "--steps"),
        (["train", "breakout", "--preset", "papers"], "paper"),
        (["train", "breakout", "--track", "mlflow"], "mlflow"),
        (["train"], "GAME"),
        *(([name], "Missing from") for name in sorted(COMMANDS.keys() - {"train", "games", "doctor", "report"})),
        (["train", "breakout", *QUICK, "--learning.replay-capacity", "99999999999"], "memory"),
        (["trian", "breakout"], "; did you mean train?"),
        (["resume", "no/such/run"], "no/such/run"),
        (["evaluate", "no/such/run"], "no/such/run"),
        (["play", "no/such/run"], "no/such/run"),
        (["games", "--suite", "atary"], "; did you mean atari?"),
        (["games", "--suite", "foo"], "choose from atari, classic, gymnasium, minatar (see"),
        (["train", "--game", "breakout"], "; give it without --game"),
        (["resume", "--run", "x"], "; give it without --run"),
        (["compare", "--game", "breakout", "--out", "x"], "; did you mean --games?"),
        (["report"], "name the folders"),
        (["report", "--out", "x"], "wn-rl report runs/A runs/B --out report"),
        (["train", "--config", "no/such/run"], "no/such/run"),
        (["train", "--config", "x", "--preset", "paper"], "--preset is decided by --config"),
        (["compare", "--games", "breakout", "--out", "x", "--config", "x"], "--config is decided by"),
        (["compare", "--games", "pong", "--out", "x", "--seeds", "1.5"], "--seeds: '1.5' is not a whole number"),
        (["tune", "pong", "--out", "x", "--space", "batch_size=8.5"], "batch_size"),
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


@pytest.mark.parametrize("text", ["1_200", "1.2k", "1200", "0.0012M", "1.2e3", "1.2E+3"])
def test_counts_are_read_as_people_write_them(text: str) -> None:
    flags = ["breakout", "--suite", "minatar", "--steps", text, "--seed", text, "--learning.batch-size", text]
    config = read_flags(flags).config
    assert (config.steps, config.seed, config.learning.batch_size) == (1200, 1200, 1200)


@pytest.mark.parametrize("text", ["1.5", "1e-3", "1e3k", "k", "", "nan", "inf", "1e99", "0x10", "1e999999999"])
@pytest.mark.parametrize("command", [["train", "breakout", "--steps"], ["evaluate", "x", "--episodes"]])
def test_what_is_no_whole_number_is_refused(
    text: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl(*command, text) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{text!r} is not a whole number, such as 100000, 100k, 2.5M or 1e6" in line


@pytest.mark.parametrize("name", ["", "config.json"])
def test_a_run_is_trained_again_with_the_settings_of_another(name: str, finished: Path, tmp_path: Path) -> None:
    """Flags win, and the name is its own."""
    again, shorter = tmp_path / "again", tmp_path / "shorter"
    assert wn_rl("train", "--config", str(finished / name), "--run-dir", str(again)) == 0
    assert_same_run(again, finished)
    flags = ["--steps", "400", "--track", "jsonl", "--run-dir", str(shorter)]
    assert wn_rl("train", "seaquest", "--config", str(finished / name), *flags) == 0
    before, after = (json.loads((run / "config.json").read_text())["config"] for run in (finished, shorter))
    changes = {"game": "seaquest", "steps": 400, "track": ["jsonl"], "run_name": after["run_name"]}
    assert after == {**before, **changes}
    assert after["run_name"] != before["run_name"]


def test_a_file_of_settings_imports_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((finished / "config.json").read_text())
    record["config"].update(suite="gymnasium", game="evil:CartPole-v1")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(record))
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for content in (json.dumps(record), "{", "[]", '{"config": 1}', '{"config": {}}', "{}", "\0"):
        file.write_text(content)
        assert wn_rl("train", "--config", str(file)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "imported" not in line or "is not imported" in line
    link = tmp_path / "link.json"
    link.symlink_to(file)
    assert wn_rl("train", "--config", str(link)) == 2
    assert "is a link" in capsys.readouterr().err


def test_a_shell_completes_flags_and_their_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("train", "--tyro-print-completion", "bash") == 0
    ask = """
    try() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _tyro_wn_rl_train wn-rl "${COMP_WORDS[COMP_CWORD]}"
        echo "${COMPREPLY[@]}"
    }
    try wn-rl train breakout --learning.bat; try wn-rl train breakout --suite mi
    """
    (tmp_path / "completion.bash").write_text(capsys.readouterr().out + ask)
    done = subprocess.run(["bash", "completion.bash"], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split() == ["--learning.batch-size", "minatar"]


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


def test_a_non_empty_folder_is_refused_with_the_resume_command(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl("train", "seaquest", *QUICK, "--run-dir", str(finished)) == 2
    assert f"wn-rl resume {finished}" in capsys.readouterr().err


def test_a_finished_run_whose_replay_is_too_large_to_keep_says_so_and_cannot_be_lengthened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wn_rl.run.training.KEPT_REPLAY_BYTES", 1000)
    run = make_run(tmp_path / "run")
    assert "without its replay of 0.0 GB, which --keep-replay would have kept" in capsys.readouterr().err
    assert wn_rl("resume", str(run), "--steps", "2000") == 2
    assert "--keep-replay" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("steps", [600, 650])
def test_a_finished_run_grows_to_what_a_longer_run_would_be(
    steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert wn_rl("train", "breakout", *QUICK, "--steps", str(steps), "--run-dir", str(short)) == 0
    capsys.readouterr()
    assert wn_rl("resume", str(short), "--steps", "1.2k") == 0
    has_row_of_end = "keeps the row of step 652, which a run of 1,200 steps lacks" in capsys.readouterr().err
    assert wn_rl("train", "breakout", *QUICK, "--steps", "1200", "--run-dir", str(whole)) == 0
    assert has_row_of_end == (steps == 650) == (len(rows_of(short)) > len(rows_of(whole)))
    if has_row_of_end:
        for run in (short, whole):  # the sums of a row begin at the row before
            write_rows(run, [row for row in rows_of(run) if row["step"] not in (652, 800)])
    assert_same_run(short, whole)


def test_a_run_whose_rate_fell_to_0_does_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert wn_rl("train", "breakout", *QUICK, "--optimizer.anneal", "--run-dir", run) == 0
    assert wn_rl("resume", run, "--steps", "1200") == 2
    assert "the learning rate falls to 0 at step 600" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--learning-rate", "did you mean --optimizer.learning-rate?"),
        ("--replay-capacity", "did you mean --learning.replay-capacity?"),
        ("--stps", "did you mean --steps?"),
    ],
)
def test_a_flag_that_is_not_there_has_a_neighbour(
    flag: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl("train", "breakout", flag, "1") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert meant in line


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


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_parent_may_have_closed_the_standard_streams(closed: str, tmp_path: Path) -> None:
    code = "import sys; from wn_rl import cli; sys.argv = ['wn-rl', 'games']; "
    code += "\ntry: cli.main()\nfinally: open('number', 'w').write(str(open('number').fileno()))"
    (tmp_path / "number").touch()
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int((tmp_path / "number").read_text()) > 2
