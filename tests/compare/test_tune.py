"""The search for settings: its space, its memory, its trials, and the command."""

import dataclasses
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from run_tools import rows_of, status_of, wn_rl

from wn_rl import tune
from wn_rl.checkpoint import CheckpointStore
from wn_rl.commands.train import Train
from wn_rl.commands.tune import Tune, _Settings
from wn_rl.compare.grid import Run
from wn_rl.compare.launch import Ended, StopSignals
from wn_rl.config import Config, to_json
from wn_rl.errors import UserError
from wn_rl.flags import parse_flags
from wn_rl.presets import laptop, minatar
from wn_rl.runs import RunFolder, write_json
from wn_rl.tune import Search, TrialRun, scores_of
from wn_rl.tune_space import Choice, Range, as_text, as_wandb_parameter, flags_for, parse_space
from wn_rl.tune_study import STARTUP_TRIALS, Study, Trial, best_of

# The space.


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("learning_rate=log:1e-5:1e-2", Range("optimizer.learning_rate", 1e-5, 1e-2, whole=False, log=True)),
        ("learning.discount=0.9:0.999", Range("learning.discount", 0.9, 0.999, whole=False)),
        ("learning.target-period=500:4200:500", Range("learning.target_period", 500, 4000, whole=True, step=500)),
        ("batch-size=log:16:128", Range("learning.batch_size", 16, 128, whole=True, log=True)),
        ("parameterization=normal,weight_norm", Choice("parameterization", ("normal", "weight_norm"))),
        ("network.log_scale=none,3", Choice("network.log_scale", ("none", "3"))),
        ("target_period=500,1000,4000", Choice("learning.target_period", ("500", "1000", "4000"))),
        ("clip_rewards=true,false", Choice("learning.clip_rewards", ("true", "false"))),
    ],
)
def test_a_space_as_it_is_typed(text: str, dimension: Choice | Range) -> None:
    assert parse_space([text]) == (dimension,)
    assert parse_space([as_text(dimension)]) == (dimension,)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "at least one field"),
        (["learning_rate"], "no FIELD=VALUES"),
        (["lerning_rate=1,2"], "did you mean optimizer.learning_rate?"),
        (["learning.batchsize=1,2"], "did you mean learning.batch_size?"),
        (["name=mlp,minatar_cnn"], "network.name or optimizer.name"),
        (["seed=1,2"], "same in all trials"),
        (["evaluation.steps=1,2"], "same in all trials"),
        (["batch_size=8,16", "learning.batch_size=8:16"], "learning.batch_size is given twice"),
        (["batch_size="], "empty value"),
        (["batch_size=8,,16"], "empty value"),
        (["batch_size=8,8"], "the value 8 twice"),
        (["clip_rewards=yes,no"], "true or false"),
        (["batch_size=16:16"], "is empty"),
        (["learning_rate=1e-2:1e-5"], "1e-2 is not below 1e-5"),
        (["learning_rate=log:0:1"], "a log range starts above 0"),
        (["learning_rate=log:-1:1"], "a log range starts above 0"),
        (["learning_rate=log:1e-5"], "is no range"),
        (["learning_rate=1:2:3:4"], "is no range"),
        (["learning_rate=log:1:2:3"], "is no range"),
        (["learning_rate=a:b"], "'a' is no number"),
        (["learning_rate=0:inf"], "'inf' is no number"),
        (["batch_size=1.5:3"], "'1.5' is no whole number"),
        (["batch_size=16:32:0"], "from 1 to HIGH - LOW"),
        (["batch_size=16:32:17"], "from 1 to HIGH - LOW"),
        (["learning.discount=0.9:1:0.1"], "they are for whole numbers"),
        (["parameterization=1:2"], "takes no range"),
        (["clip_rewards=0:1"], "takes no range"),
    ],
)
def test_what_is_no_space_is_one_clear_line(texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as error:
        parse_space(texts)
    assert "\n" not in str(error.value)


def test_values_become_what_wn_rl_train_reads() -> None:
    values = {
        "optimizer.learning_rate": 0.00031622776601683794,
        "learning.clip_rewards": "false",
        "network.log_scale": "none",
        "learning.batch_size": 48,
        "parameterization": "normal",
    }
    config: Config = parse_flags(Train, ["breakout", *flags_for(values)], default=Train(minatar("x"))).config
    assert config.optimizer.learning_rate == 0.00031622776601683794
    assert config.learning.clip_rewards is False
    assert config.network.log_scale is None
    assert config.learning.batch_size == 48
    assert config.parameterization == "normal"
    assert flags_for({"learning.clip_rewards": "True"}) == ["--learning.clip-rewards"]


def test_the_space_of_a_sweep() -> None:
    texts = ["learning_rate=log:1e-5:1e-2", "discount=0.9:0.99", "batch_size=8:64", "target_period=500:1500:500"]
    assert dict(map(as_wandb_parameter, parse_space([*texts, "update_period=log:1:8", "network.stack=1,2"]))) == {
        "optimizer.learning-rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2},
        "learning.discount": {"distribution": "uniform", "min": 0.9, "max": 0.99},
        "learning.batch-size": {"distribution": "int_uniform", "min": 8, "max": 64},
        "learning.target-period": {"values": [500, 1000, 1500]},
        "learning.update-period": {"distribution": "q_log_uniform_values", "min": 1, "max": 8},
        "network.stack": {"values": ["1", "2"]},
    }
    with pytest.raises(UserError, match=r"the switch learning\.clip_rewards"):
        as_wandb_parameter(*parse_space(["clip_rewards=true,false"]))


# Its memory.

SPACE = parse_space(["learning_rate=log:1e-5:1e-2", "batch_size=8:64", "parameterization=normal,weight_norm"])


def open_study(out: Path, **changes: Any) -> Study:
    out.mkdir(exist_ok=True)
    return Study(out, changes.pop("space", SPACE), dataclasses.replace(minatar("breakout"), **changes))


def test_values_lie_in_the_space_and_are_a_function_of_seed_number_and_what_was_told(tmp_path: Path) -> None:
    one, same, other = (open_study(tmp_path / name, seed=seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    asked = []
    for number in range(STARTUP_TRIALS + 6):
        trials = [study.ask() for study in (one, same, other)]
        assert trials[0] == trials[1] != trials[2]
        assert trials[0].number == number
        for study, trial in zip((one, same, other), trials, strict=True):
            assert 1e-5 <= float(trial.values["optimizer.learning_rate"]) <= 1e-2
            assert trial.values["learning.batch_size"] in range(8, 65)
            study.finish(trial, -abs(float(trial.values["learning.batch_size"]) - 40))
        asked.append(trials[0])
        if number % 3 == 0:
            same = open_study(tmp_path / "b", seed=1)  # as after a kill
    assert len({trial.values["optimizer.learning_rate"] for trial in asked}) == len(asked)
    assert [result.trial for result in one.results()] == asked
    [best, *_] = best_of(one.results())
    assert abs(float(best.trial.values["learning.batch_size"]) - 40) == -(best.score or 0)


def test_a_trial_of_a_killed_search_is_taken_up_with_its_values(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    study.report(trial, [1.0, 2.0])
    again = open_study(tmp_path)
    assert again.unfinished() == [trial]
    assert not again.report(trial, [1.0, 2.0])  # each once
    again.finish(trial, 2.0)
    assert [(result.trial, result.score) for result in again.results()] == [(trial, 2.0)]
    assert again.unfinished() == []


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_kill_between_two_lines_or_within_one_loses_nothing_else(kept: int, tmp_path: Path) -> None:
    """A trial whose values were not all written gets the rest; a torn line and a lock are removed."""
    first = open_study(tmp_path)
    done = first.ask()
    first.finish(done, 1.0)
    journal = tmp_path / "study.journal"
    before = journal.read_bytes()
    trial = first.ask()
    added = journal.read_bytes()[len(before) :].splitlines(keepends=True)
    assert len(added) == 1 + len(SPACE)
    journal.write_bytes(before + b"".join(added[:kept]) + added[-1][:7])
    os.symlink(journal, f"{journal}.lock")
    started = time.monotonic()
    again = open_study(tmp_path)
    [taken_up] = again.unfinished()
    assert time.monotonic() - started < 10  # no waiting for the dead process's lock
    assert taken_up.number == trial.number
    assert list(taken_up.values) == list(trial.values)
    fields = list(trial.values)[: kept - 1]
    assert [taken_up.values[name] for name in fields] == [trial.values[name] for name in fields]
    assert [result.trial for result in again.results()] == [done]
    assert open_study(tmp_path).unfinished() == [taken_up]


def test_the_worse_are_pruned_after_the_first_few(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for score in range(STARTUP_TRIALS):
        trial = study.ask()
        assert not study.report(trial, [score, score])
        study.finish(trial, score)
    worse, better = study.ask(), study.ask()
    assert study.report(worse, [1.0])
    assert not study.report(better, [3.0])
    study.prune(worse)
    study.fail(better, "out of memory")
    assert [(result.state, result.message) for result in study.results()[-2:]] == [
        ("pruned", ""), ("failed", "out of memory"),
    ]  # fmt: skip
    assert [result.score for result in best_of(study.results())] == [4.0, 3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 7}, "holds a search with steps 500000, not 7"),
        ({"seed": 9}, "with seed 1, not 9"),
        ({"space": SPACE[:1]}, "holds a search over optimizer.learning_rate="),
    ],
)
def test_another_search_in_the_folder_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    open_study(tmp_path)
    open_study(tmp_path, device="cuda", torch_threads=2)  # how it is computed may change
    with pytest.raises(UserError, match=re.escape(says)) as error:
        open_study(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path).ask()
    journal = tmp_path / "study.journal"
    journal.write_bytes(b"garbage\n" + journal.read_bytes())
    with pytest.raises(UserError, match="is damaged"):
        open_study(tmp_path)


# Its trials, with processes that are made up.


def leave_tests(run: Path, returns: Sequence[float | None]) -> None:
    """Metrics of so many tests."""
    rows = [{"step": 1, "loss": 0.5}, *({"step": i, "eval/return_mean": value} for i, value in enumerate(returns))]
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_scores_are_means_of_the_last_three_tests(tmp_path: Path) -> None:
    assert scores_of(tmp_path) == []
    leave_tests(tmp_path, [1.0, None, 3.0, 5.0, 10.0])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "eval/return_mean": 4')  # in the writing
    assert scores_of(tmp_path) == [1.0, 2.0, 3.0, 6.0]


def replay_of(run: Path) -> Path:
    """Where the checkpoints of a run have its replay."""
    return RunFolder(run).checkpoints / "replay"


class MadeUp:
    """A launcher whose runs make a test at each look, with the score of an objective, and end after `tests`."""

    def __init__(self, objective: Callable[[Config], float], tests: int, exit_codes: dict[int, int]) -> None:
        self.objective, self.tests, self.exit_codes = objective, tests, exit_codes
        self.running: dict[str, tuple[Run, int]] = {}
        self.stopped: list[str] = []
        self.started: list[str] = []

    def has_room(self) -> bool:
        return len(self.running) < 2

    def start(self, run: Run) -> None:
        write_json(RunFolder(run.path).config_file, {"config": to_json(run.config)})
        replay_of(run.path).mkdir(parents=True, exist_ok=True)
        self.running[run.name] = run, 0
        self.started.append(run.name)

    def stop_run(self, run: Run) -> None:
        self.stopped.append(run.name)

    def stop(self, *, at_once: bool) -> None:
        self.stopped += list(self.running)

    def ended(self) -> list[Ended]:
        over = []
        for name, (run, tests) in list(self.running.items()):
            assert isinstance(run, TrialRun)
            if run.number in self.exit_codes:
                run.log.parent.mkdir(parents=True, exist_ok=True)
                run.log.write_text("working\nout of memory\n")
                over.append(Ended(run, self.exit_codes[run.number]))
            elif name in self.stopped:
                over.append(Ended(run, 143))
            elif tests == self.tests:
                RunFolder(run.path).write_status("finished", run.config.steps)
                over.append(Ended(run, 0))
            else:
                leave_tests(run.path, [self.objective(run.config)] * (tests + 1))
                self.running[name] = run, tests + 1
        for ended in over:
            del self.running[ended.run.name]
        return over


def rate_objective(config: Config) -> float:
    """Best at a rate of 1e-3."""
    return -abs(math.log10(config.learning_rate) + 3)


def search(
    out: Path, trials: int, launcher: MadeUp, stop: StopSignals | None = None, *, keep_replay: bool = False
) -> tuple[Study, list[str]]:
    """Search with made-up runs; the study, and what was said."""
    study, said = open_study(out, steps=1000), list[str]()

    def configure(trial: Trial) -> Config:
        if trial.number == 3:
            raise ValueError("--learning.target-period 500 must be a multiple")
        rate = float(trial.values["optimizer.learning_rate"])
        base = dataclasses.replace(minatar("breakout"), steps=1000, keep_replay=keep_replay)
        return dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, learning_rate=rate))

    arguments: Any = (study, out, launcher, configure, trials, stop or StopSignals(), said.append)
    Search(*arguments).run()
    return study, said


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_POLL_SECONDS", 0.001)


def test_a_search_finds_what_is_best_and_goes_on_past_failures(tmp_path: Path) -> None:
    launcher = MadeUp(rate_objective, 4, {5: 1, 6: -9})
    study, said = search(tmp_path, 30, launcher)
    results = study.results()
    states = [result.state for result in results]
    assert len(results) == 30
    assert [number for number, state in enumerate(states) if state == "failed"] == [3, 5, 6]
    messages = [result.message for result in results if result.state == "failed"]
    assert "must be a multiple" in messages[0]
    assert "out of memory (its log: " in messages[1]
    assert "killed by signal 9" in messages[2]
    assert states.count("pruned") > 3
    assert {f"trial-{number:04d}" for number, state in enumerate(states) if state == "pruned"} == set(
        launcher.stopped
    )
    best = best_of(results)[0]
    assert best.score is not None
    assert best.score > -0.2
    assert len(said) == 30
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize("keep_replay", [False, True])
def test_trials_that_end_early_keep_no_replay_unless_it_is_asked_for(keep_replay: bool, tmp_path: Path) -> None:
    study, said = search(tmp_path, 15, MadeUp(rate_objective, 4, {4: 1}), keep_replay=keep_replay)
    for state in ("pruned", "failed"):
        numbers = [result.trial.number for result in study.results() if result.state == state]
        runs = [tmp_path / "runs" / f"trial-{number:04d}" for number in numbers if number != 3]  # which has none
        assert runs
        assert [replay_of(run).exists() for run in runs] == [keep_replay] * len(runs)
        assert all(RunFolder(run).checkpoints.is_dir() for run in runs)
    assert not any("warning" in line for line in said)


def test_a_replay_that_cannot_be_dropped_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: CheckpointStore) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(CheckpointStore, "drop_replay", refuse)
    study, said = search(tmp_path, 3, MadeUp(rate_objective, 4, {1: 1}))
    assert [result.state for result in study.results()] == ["finished", "failed", "finished"]
    assert "warning: the replay of trial-0001 is not dropped: read-only file system" in said


def test_a_stopped_search_goes_on_and_more_trials_extend_it(tmp_path: Path) -> None:
    stop = StopSignals()

    class Stopping(MadeUp):
        def ended(self) -> list[Ended]:
            if len(self.started) >= 3:
                stop.count = 1
            return super().ended()

    launcher = Stopping(rate_objective, 4, {})
    study, _ = search(tmp_path, 6, launcher, stop)
    unfinished = [f"trial-{trial.number:04d}" for trial in open_study(tmp_path, steps=1000).unfinished()]
    assert unfinished
    assert all(replay_of(tmp_path / "runs" / name).exists() for name in unfinished)
    again = MadeUp(rate_objective, 4, {})
    study, _ = search(tmp_path, 6, again)
    assert again.started[: len(unfinished)] == unfinished
    assert len(study.results()) == 6
    study, _ = search(tmp_path, 8, MadeUp(rate_objective, 4, {}))
    assert len(study.results()) == 8
    idle = MadeUp(rate_objective, 4, {})
    search(tmp_path, 8, idle)
    assert idle.started == []


def test_a_run_that_finished_before_the_search_was_killed_is_not_run_again(tmp_path: Path) -> None:
    study = open_study(tmp_path, steps=1000)
    trial = study.ask()
    rate = float(trial.values["optimizer.learning_rate"])
    base = dataclasses.replace(minatar("breakout"), steps=1000)
    config = dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, learning_rate=rate))
    run = TrialRun(config, tmp_path, trial.number)
    write_json(RunFolder(run.path).config_file, {"config": to_json(config)})
    RunFolder(run.path).write_status("finished", 1000)
    leave_tests(run.path, [7.0])
    launcher = MadeUp(rate_objective, 4, {})
    study, _ = search(tmp_path, 1, launcher)
    assert launcher.started == []
    assert [result.score for result in study.results()] == [7.0]


# The command.

# A trial of a second; a test every 120 steps unless --evaluation.period is given.
TINY = [
    "breakout", "--suite", "minatar", "--device", "cpu", "--track", "jsonl", "--steps", "600",
    "--log-period", "200", "--checkpoint-period", "200", "--learning.replay-start", "100",
    "--learning.replay-capacity", "2000",
    "--learning.epsilon-steps", "200", "--network.init-states", "32", "--evaluation.steps", "100",
    "--evaluation.held-out-states", "16", "--evaluation.video-period", "0",
]  # fmt: skip
TARGET = ["--learning.target-period", "100"]
LONG = [*TINY, *TARGET, "--evaluation.period", "300", "--space", "batch_size=8:32"]


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
    [command] = re.findall(r"train the best for longer: wn-rl (.*)", printed.out)
    longer = parse_flags(Train, shlex.split(command)[1:], default=Train(minatar("x"))).config
    assert longer.steps == 500_000  # the preset's
    assert longer.evaluation.period == 50_000
    best = re.findall(r"^  (trial-\d+)", printed.out, flags=re.MULTILINE)[0]
    config = json.loads((out / "runs" / best / "config.json").read_text())["config"]
    assert to_json(longer)["optimizer"] == config["optimizer"]
    assert to_json(longer)["learning"] == config["learning"]
    assert longer.parameterization == config["parameterization"]
    assert wn_rl("tune", *arguments) == 0  # nothing is left to do
    assert capsys.readouterr().out == printed.out


def test_a_search_that_is_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*LONG, "--steps", "1500", "--trials", "3", "--workers", "2"]
    command = [sys.executable, "-m", "wn_rl.cli", "tune", *words, "--out", str(out)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("runs/*/checkpoints/step_*")):
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    begun = {path.parent.name: path.read_bytes() for path in out.glob("runs/*/config.json")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 trials: 3 finished, 0 pruned, 0 failed\n")
    runs = sorted((out / "runs").iterdir())
    assert [run.name for run in runs] == ["trial-0000", "trial-0001", "trial-0002"]
    for run in runs:
        if run.name in begun:
            now = json.loads((run / "config.json").read_bytes())
            assert now["config"]["learning"] == json.loads(begun[run.name])["config"]["learning"]
        assert [row["step"] for row in rows_of(run) if "eval/return_mean" in row] == list(range(300, 1501, 300))


def test_ctrl_c_saves_and_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*LONG, "--steps", "1000000", "--trials", "2", "--workers", "1"]
    command = [sys.executable, "-m", "wn_rl.cli", "tune", *words, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("runs/*/checkpoints/step_*")):
        assert process.poll() is None
        time.sleep(0.01)
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert f"in use by another run (process {process.pid})" in second.stderr
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said.splitlines()[-1]
    assert status_of(out / "runs" / "trial-0000")["status"] == "interrupted"


def test_trials_that_cannot_be_are_reported_and_do_not_end_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 updates a step and a target period of 6 do not go together; alone, with the defaults, each may."""
    out = tmp_path / "out"
    space = ["--space", "update_period=2,4", "target_period=6,12", "--trials", "6"]
    words = [*TINY, "--steps", "250", "--evaluation.steps", "60", *space, "--out", str(out)]
    assert wn_rl("tune", *words) == 0
    printed = capsys.readouterr().out
    failed = re.findall(r"^  failed: (trial-\d+) with (.*)", printed, flags=re.MULTILINE)
    assert failed
    assert all(
        "target_period 6: --learning.target-period 6 must be a multiple of" in message for _, message in failed
    )
    assert not any((out / "runs" / name).exists() for name, _ in failed)


def test_no_finished_trial_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["--optimizer.learning-rate", "1e30"]
    words = [*TINY, *TARGET, *diverging, "--space", "batch_size=8,16", "--trials", "1"]
    assert wn_rl("tune", *words, "--out", str(tmp_path / "out")) == 1
    printed = capsys.readouterr().out
    assert "1 trials: 0 finished, 0 pruned, 1 failed" in printed
    assert "no trial finished" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--space", "lerning_rate=1,2"], "did you mean optimizer.learning_rate?"),
        (["--space", "learning_rate=log:0:1"], "a log range starts above 0"),
        (["--space", "batch_size=9:9"], "is empty"),
        (["--space"], "--space"),
        ([], "--space"),
        (["--space", "batch_size=8,16", "--trials", "0"], "--trials must be at least 1, got 0"),
        (["--space", "batch_size=8,16", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["--space", "batch_size=0,16"], "--learning.batch-size must be at least 1, got 0"),
        (["--space", "discount=0.9:2"], "--learning.discount must be between 0 and 1"),
        (["--space", "parameterization=normal,weightnorm"], "weightnorm"),
        (["--space", "batch_size=8,16", "--learning.batch-size", "4"], "is searched by --space"),
        (["--space", "batch_size=8,16", "--run-dir", "x"], "--run-dir is decided by"),
        (["--space", "batch_size=8,16", "--evaluation.period", "0"], "gives a run of 600 steps no test"),
        (["--space", "batch_size=8,16", "--stps", "5"], "--stps"),
        (["--space", "batch_size=8,16", "--wandb-sweep", "s.yaml"], "--track jsonl wandb"),
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


@pytest.mark.parametrize(
    ("flags", "suite", "base"),
    [
        (["--preset", "minatar"], "minatar", minatar),
        (["--preset", "laptop", "--suite", "minatar"], "minatar", laptop),
        ([], "atari", laptop),
    ],
)
def test_the_suite_is_that_of_the_flag_else_of_the_preset_else_atari(
    flags: list[str], suite: str, base: Callable[[str], Config]
) -> None:
    words = ["breakout", "--space", "batch_size=8,16", "--out", "out", "--device", "cpu", *flags]
    config = _Settings.of(parse_flags(Tune, words), ()).config()
    assert config == dataclasses.replace(base("breakout"), suite=suite, device="cpu")


def test_a_preset_of_ones_own_is_known(tmp_path: Path) -> None:
    (tmp_path / "own_preset.py").write_text(
        "import dataclasses\n"
        "from wn_rl.presets import minatar\n"
        "from wn_rl.registry import PRESETS\n"
        "PRESETS['own'] = lambda game: dataclasses.replace(minatar(game), preset='own', steps=70)\n"
    )
    flags = ["--preset", "own", "--track", "jsonl", "wandb", "--wandb-sweep", "sweep.json", "--out", "out"]
    words = ["--import", "own_preset", "tune", "breakout", *flags, "--space", "batch_size=8,16"]
    command = [sys.executable, "-m", "wn_rl.cli", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    command = json.loads((tmp_path / "sweep.json").read_text())["command"]
    assert command[2:8] == ["--import", "own_preset", "train", "breakout", "--preset", "own"]
    assert command[command.index("--evaluation.period") + 1] == "14"


def test_an_unknown_game_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("tune", "brekout", "--space", "batch_size=8,16", "--out", "out") == 2
    assert "breakout" in capsys.readouterr().err


def test_the_agent_of_wandb_trains_at_points_of_the_space(tmp_path: Path) -> None:
    """The command that W&B's own code makes of the sweep file is one that `wn-rl train` takes."""
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    file = tmp_path / "sweep.yaml"
    space = ["learning_rate=log:1e-5:1e-2", "batch_size=8,16"]
    words = [*TINY, "--track", "jsonl", "wandb", "--space", *space, "--trials", "7", "--out", "out"]
    assert wn_rl("tune", *words, "--wandb-sweep", str(file)) == 0
    sweep: dict[str, Any] = yaml.safe_load(file.read_text())
    assert (sweep["method"], sweep["run_cap"]) == ("bayes", 7)
    assert sweep["metric"] == {"name": "eval/return_mean", "goal": "maximize"}
    chosen = {"optimizer.learning-rate": {"value": 0.002}, "learning.batch-size": {"value": "16"}}
    assert chosen.keys() == sweep["parameters"].keys()
    arguments = create_sweep_command_args({"args": chosen})["args"]
    command = create_sweep_command(list(sweep["command"]))
    assert command[:3] == ["${env}", "${program}", "train"]
    assert command.pop() == "${args}"
    config = parse_flags(Train, [*command[3:], *arguments], default=Train(minatar("x"))).config
    assert (config.learning_rate, config.learning.batch_size, config.steps) == (0.002, 16, 600)
    assert "wandb" in config.track
