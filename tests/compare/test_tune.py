"""The search for settings: its space, its trials with made-up runs, and real ones that are killed and stopped."""

import json
import math
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution, IntDistribution
from run_tools import rows_of, start, status_of, wait_for, wn_rl, write_rows

from wn_rl.commands import tune
from wn_rl.compare.grid import Run
from wn_rl.compare.launch import Ended, Slot
from wn_rl.config import Role, names_of, to_json
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.run.folder import RunFolder, write_json

# A trial of a second; an evaluation every 120 steps unless --evaluation.period is given.
TINY = [
    "breakout", "--suite", "minatar", "--device", "cpu", "--track", "jsonl", "--steps", "600",
    "--log-period", "200", "--checkpoint-period", "200", "--learning.replay-start", "100",
    "--learning.replay-capacity", "2000",
    "--learning.epsilon-steps", "200", "--network.init-states", "32", "--evaluation.steps", "100",
    "--evaluation.held-out-states", "16", "--evaluation.video-period", "0",
]  # fmt: skip
TARGET = ["--learning.target-period", "100"]
RATES = ["--space", "learning_rate=log:1e-5:1e-2"]


# The space.


@pytest.mark.parametrize(
    ("text", "name", "distribution"),
    [
        ("learning_rate=log:1e-5:1e-2", "optimizer.learning_rate", FloatDistribution(1e-5, 1e-2, log=True)),
        ("learning.discount=0.9:0.999", "learning.discount", FloatDistribution(0.9, 0.999)),
        ("batch-size=log:16:128", "learning.batch_size", IntDistribution(16, 128, log=True)),
        ("parameterization=normal,batch_norm", "parameterization", Choice(["normal", "batch_norm"])),
        ("network.log_scale=none,3", "network.log_scale", Choice([None, 3.0])),
        ("target_period=500,1000,4000", "learning.target_period", Choice([500, 1000, 4000])),
        ("clip_rewards=true,false", "learning.clip_rewards", Choice([True, False])),
    ],
)
def test_a_space_as_it_is_typed(text: str, name: str, distribution: Any) -> None:
    assert tune._parse(text, minatar("breakout")) == (name, distribution)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lerning_rate=1,2", "did you mean optimizer.learning_rate?"),
        ("learning.batchsize=1,2", "did you mean learning.batch_size?"),
        ("name=mlp,minatar_cnn", "did you mean network.name or optimizer.name?"),
        *(
            (text, f"'{text}' does not say what")
            for text in [
                *("batch_size=", "batch_size=8,,16", "clip_rewards=yes,no", "clip_rewards=0:1"),
                *("batch_size=1.5:3", "batch_size=500:4000:500", "learning_rate", "learning_rate=1e-2:1e-5"),
                *("learning_rate=log:0:1", "learning_rate=log:1e-5", "learning_rate=a:b"),
            ]
        ),
        ("batch_size=0,16", "--learning.batch-size must be at least 1, got 0"),
        ("discount=0.9:2", "--learning.discount must be between 0 and 1"),
        ("learning_rate=0.1:inf", "--optimizer.learning-rate must be greater than 0, got inf"),
        ("parameterization=normal,weightnorm", "weightnorm"),
        ("target_period=6,12", "--learning.target-period 6 must be a multiple of --learning.update-period 4"),
    ],
)
def test_a_space_that_is_invalid_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        tune._parse(text, minatar("breakout"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(names_of(Role.RUN, Role.EVALUATION, Role.CIRCUMSTANCE, Role.RECORD)))
def test_only_what_decides_learning_is_searched(name: str) -> None:
    """A search over what changes the evaluation would find the evaluation that gives the most."""
    with pytest.raises(UserError, match=f"'{name}' is not a setting that decides what is learned"):
        tune._parse(f"{name}=1,2", minatar("breakout"))


# Trials whose processes are made up.


class MadeUp:
    """A launcher whose run makes four evaluations, one at each look, the better the nearer its rate is to 1e-3."""

    exit_codes: ClassVar[dict[str, int]] = {}  # of runs that fail
    started: ClassVar[list[str]] = []
    stop_at: ClassVar[int] = -1  # how many runs have started when a signal comes
    lock = threading.Lock()

    def __init__(self, slots: list[Slot]) -> None:
        self.run: Run | None = None
        self.evaluations, self.is_stopped = 0, False

    at_once = 1

    def start(self, run: Run) -> None:
        write_json(RunFolder(run.path).config_file, {"config": to_json(run.config)})
        replay_of(run.path).mkdir(parents=True, exist_ok=True)
        self.run = run
        with self.lock:
            self.started.append(run.name)
            if len(self.started) == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, *, at_once: bool) -> None:
        self.is_stopped = True

    def ended(self) -> list[Ended]:
        if self.run is None:
            return []
        if self.run.name in self.exit_codes:
            self.run.log.parent.mkdir(parents=True, exist_ok=True)
            self.run.log.write_text("working\nout of memory\n")
            return [Ended(self.run, self.exit_codes[self.run.name])]
        if self.is_stopped:
            return [Ended(self.run, 143)]
        if self.evaluations == 4:
            RunFolder(self.run.path).write_status("finished", self.run.config.steps)
            return [Ended(self.run, 0)]
        self.evaluations += 1
        leave_evaluations(self.run.path, [-abs(math.log10(self.run.config.learning_rate) + 3)] * self.evaluations)
        return []


def leave_evaluations(run: Path, returns: list[float | None]) -> None:
    """Write the metrics of a run whose evaluations had these mean returns."""
    evaluations = [{"step": i, "eval/return_mean": value} for i, value in enumerate(returns)]
    write_rows(run, [{"step": 1, "loss": 0.5}, *evaluations])


def replay_of(run: Path) -> Path:
    """Where the checkpoints of a run have its replay."""
    return RunFolder(run).checkpoints / "replay"


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUp]:
    """Trials are made up; the class to change."""
    monkeypatch.setattr("wn_rl.compare.launch.POLL_SECONDS", 0.001)
    monkeypatch.setattr(tune, "LocalLauncher", MadeUp)
    monkeypatch.setattr(MadeUp, "exit_codes", {})
    monkeypatch.setattr(MadeUp, "started", [])
    return MadeUp


def search(out: Path, trials: int, *more: str, workers: int = 2) -> int:
    return wn_rl(
        "tune", *TINY, *RATES, "--trials", str(trials), "--workers", str(workers), "--out", str(out), *more
    )


@pytest.mark.parametrize("keep_replay", [False, True])
def test_a_search_finds_what_is_best_prunes_and_goes_on_past_failures(
    keep_replay: bool, made_up: type[MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up.exit_codes = {"trial-0005": 1, "trial-0006": -9}
    assert search(tmp_path, 30, *(["--keep-replay"] if keep_replay else [])) == 0
    printed = capsys.readouterr()
    numbers = re.match(r"30 trials: (\d+) finished, (\d+) pruned, 2 failed\n", printed.out)
    assert numbers is not None
    assert int(numbers[2]) > 3
    assert re.search(r"^trial-0005  out of memory \(its log: ", printed.err, flags=re.MULTILINE)
    assert re.search(r"^trial-0006  it was killed by signal 9", printed.err, flags=re.MULTILINE)
    best = re.search(
        r"^  (trial-\d+)  complete, score (\S+)  optimizer.learning_rate ", printed.out, flags=re.MULTILINE
    )
    assert best is not None
    assert float(best[2]) > -0.5
    assert len(printed.err.splitlines()) == 30
    ended_early = ["trial-0005", *re.findall(r"(trial-\d+)  pruned, score", printed.err)]
    assert len(ended_early) == int(numbers[2]) + 1
    assert all(replay_of(tmp_path / "runs" / name).exists() == keep_replay for name in ended_early)


def test_trials_of_one_seed_are_the_same_and_others_of_another(made_up: type[MadeUp], tmp_path: Path) -> None:
    def rates(out: Path) -> list[float]:
        configs = (json.loads(path.read_bytes()) for path in sorted(out.glob("runs/*/config.json")))
        return [config["config"]["optimizer"]["learning_rate"] for config in configs]

    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert search(tmp_path / name, 8, "--seed", seed, workers=1) == 0
    assert rates(tmp_path / "a") == rates(tmp_path / "b") != rates(tmp_path / "c")
    assert len(set(rates(tmp_path / "a"))) == 8


def test_a_trial_takes_the_default_rate_of_its_own_parameterization(made_up: type[MadeUp], tmp_path: Path) -> None:
    space = ["--space", "parameterization=normal,weight_norm", "--trials", "8", "--workers", "1"]
    assert wn_rl("tune", *TINY, *space, "--out", str(tmp_path)) == 0
    configs = [json.loads(path.read_bytes())["config"] for path in tmp_path.glob("runs/*/config.json")]
    rates = {(config["parameterization"], config["optimizer"]["learning_rate"]) for config in configs}
    assert rates == {("normal", 1e-4), ("weight_norm", 3e-4)}


def test_a_stopped_search_goes_on_and_more_trials_extend_it(
    made_up: type[MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up.stop_at = 3
    assert search(tmp_path, 6) == 143
    assert capsys.readouterr().err.splitlines()[-1].endswith("over; the same command continues")
    stopped = [run for run in (tmp_path / "runs").iterdir() if not RunFolder(run).is_finished()]
    assert stopped
    assert all(replay_of(run).exists() for run in stopped)
    made_up.stop_at, made_up.started = -1, []
    assert search(tmp_path, 6) == 0
    assert {run.name for run in stopped} <= set(made_up.started)
    assert re.match(r"6 trials: \d finished, \d pruned, 0 failed", capsys.readouterr().out)
    assert search(tmp_path, 8) == 0
    assert re.match(r"8 trials: \d finished, \d pruned, 0 failed", capsys.readouterr().out)
    made_up.started = []
    assert search(tmp_path, 8) == 0
    assert made_up.started == []


def test_a_trial_of_a_killed_search_is_taken_up_with_its_values(
    made_up: type[MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a kill leaves: trials that run, one of which has no value yet, a line in the writing, and a lock."""
    assert search(tmp_path, 1) == 0
    journal = tmp_path / "study.journal"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="tune", storage=storage)
    taken, without_value = study.ask(), study.ask()
    rate = taken.suggest_float("optimizer.learning_rate", 1e-5, 1e-2, log=True)
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    Path(f"{journal}.lock").touch()
    started = time.monotonic()
    assert search(tmp_path, 4) == 0
    assert time.monotonic() - started < 20  # without a wait for the lock of the dead process
    assert "4 trials: 4 finished" in capsys.readouterr().out
    config = json.loads((tmp_path / "runs" / f"trial-{taken.number:04d}" / "config.json").read_text())["config"]
    assert config["optimizer"]["learning_rate"] == rate
    assert (tmp_path / "runs" / f"trial-{without_value.number:04d}").exists()


def test_a_run_that_finished_before_the_search_was_killed_is_not_run_again(
    made_up: type[MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up.stop_at = 1
    assert search(tmp_path, 1) == 143
    made_up.stop_at = -1
    run = tmp_path / "runs" / "trial-0000"
    RunFolder(run).write_status("finished", 600)
    leave_evaluations(run, [1.0, None, 3.0, 5.0, 10.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "eval/return_mean": 4')  # in the writing
    assert search(tmp_path, 1) == 0
    assert made_up.started == ["trial-0000"]
    assert "trial-0000  complete, score 6  " in capsys.readouterr().out  # the mean of the last three


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--steps", "700"], "was started with steps 600, and this command asks for 700"),
        (["--seed", "9"], "with seed 1, and this command asks for 9"),
        (["--space", "batch_size=8,16"], "was started with space ['learning_rate=log:1e-5:1e-2']"),
    ],
)
def test_another_search_in_the_folder_is_refused(
    flags: list[str], says: str, made_up: type[MadeUp], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(tmp_path, 1) == 0
    assert search(tmp_path, 1, "--torch-threads", "2", "--log-period", "7") == 0  # how it is computed may change
    capsys.readouterr()
    assert search(tmp_path, 1, *flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


# Real runs.


def test_a_search_of_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    space = ["learning_rate=log:1e-5:1e-2", "parameterization=normal,batch_norm", "clip_rewards=true,false"]
    arguments = [*TINY, *TARGET, "--space", *space, "--trials", "3", "--workers", "2", "--out", str(out)]
    assert wn_rl("tune", *arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("3 trials: 3 finished, 0 pruned, 0 failed\n")
    assert len(printed.err.strip().splitlines()) == 3
    runs = sorted((out / "runs").iterdir())
    assert [run.name for run in runs] == ["trial-0000", "trial-0001", "trial-0002"]
    for run in runs:
        assert status_of(run)["status"] == "finished"
        config = json.loads((run / "config.json").read_text())["config"]
        assert (config["evaluation"]["period"], config["torch_threads"], config["group"]) == (120, 1, "out")
        assert len([row for row in rows_of(run) if "eval/return_mean" in row]) == 5
    assert wn_rl("tune", *arguments) == 0  # nothing is left to do
    assert capsys.readouterr().out == printed.out


def start_search(out: Path, *flags: str) -> "subprocess.Popen[str]":
    """A search that has a checkpoint."""
    words = [*TINY, *TARGET, "--evaluation.period", "300", "--space", "batch_size=8:32", *flags, "--out", str(out)]
    process = start("tune", *words)
    wait_for(lambda: list(out.glob("runs/*/checkpoints/step_*")), process)
    return process


def test_a_search_that_is_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    flags = ["--steps", "1500", "--trials", "3", "--workers", "2"]
    victim = start_search(tmp_path, *flags)
    victim.kill()
    victim.communicate()
    begun = {path.parent.name: path.read_bytes() for path in tmp_path.glob("runs/*/config.json")}
    process = start_search(tmp_path, *flags)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert printed.startswith("3 trials: 3 finished, 0 pruned, 0 failed\n")
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 3
    assert begun.keys() <= {run.name for run in runs}
    assert any("resuming at step" in log.read_text() for log in (tmp_path / "logs").iterdir())
    for run in runs:
        if run.name in begun:
            now = json.loads((run / "config.json").read_bytes())
            assert now["config"]["learning"] == json.loads(begun[run.name])["config"]["learning"]
        assert [row["step"] for row in rows_of(run) if "eval/return_mean" in row] == list(range(300, 1501, 300))


def test_ctrl_c_saves_and_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    flags = ["--steps", "1000000", "--trials", "2", "--workers", "1"]
    process = start_search(tmp_path, *flags)
    second = start_search(tmp_path, *flags)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"in use by another run (process {process.pid})" in said
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped with 0 trials over; the same command continues"
    assert status_of(tmp_path / "runs" / "trial-0000")["status"] == "interrupted"


def test_trials_that_are_invalid_are_reported_and_do_not_end_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Normal layers and a log scale exclude each other, and either is valid beside the settings of all trials."""
    space = ["--space", "parameterization=normal,weight_norm", "log_scale=none,3", "--trials", "6"]
    words = [*TINY, *TARGET, "--steps", "250", "--evaluation.steps", "60", *space, "--out", str(tmp_path)]
    assert wn_rl("tune", *words) == 0
    said = capsys.readouterr().err
    failed = re.findall(r"^(trial-\d+)  --network.log-scale needs", said, flags=re.MULTILINE)
    assert failed
    assert not any((tmp_path / "runs" / name).exists() for name in failed)


def test_no_finished_trial_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["--optimizer.learning-rate", "1e30", "--space", "batch_size=8,16", "--trials", "1"]
    assert wn_rl("tune", *TINY, *TARGET, *diverging, "--out", str(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "1 trial: 0 finished, 0 pruned, 1 failed" in printed
    assert "no trial finished" in printed


# The command.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--space", "lerning_rate=1,2"], "did you mean optimizer.learning_rate?"),
        (["--space"], "--space"),
        ([], "--space"),
        (["--space", "batch_size=8,16", "learning.batch_size=8:16"], "each one once"),
        ([*RATES, "--trials", "0"], "--trials must be at least 1, got 0"),
        ([*RATES, "--workers", "0"], "--workers must be at least 1, got 0"),
        ([*RATES, "--optimizer.learning_rate=1"], "--optimizer.learning-rate is decided by --space"),
        (["--space", "clip_rewards=true,false", "--learning.no-clip-rewards"], "is decided by --space"),
        ([*RATES, "--run-dir", "x"], "--run-dir is decided by GAME and --out"),
        ([*RATES, "--evaluation.period", "0"], "gives a run of 600 steps no evaluation"),
        ([*RATES, "--stps", "5"], "--stps"),
        (["--suite", "atari", "--preset", "laptop", "brekout", *RATES], "brekout"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wn_rl("tune", *TINY, "--out", "out", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]
    assert list(tmp_path.iterdir()) == []
