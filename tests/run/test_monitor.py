"""What happens between the steps of a run: evaluations, the best network, checkpoints, and being asked to stop."""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_tools import QUICK, rows_of, status_of, wn_rl

from wn_rl.agents.dqn import Learner
from wn_rl.agents.episodes import Episodes
from wn_rl.agents.evaluation import Interrupted
from wn_rl.config import identity
from wn_rl.envs import make
from wn_rl.presets import minatar
from wn_rl.run import monitor
from wn_rl.run.checkpoint import CheckpointStore
from wn_rl.run.folder import RunFolder, open_run
from wn_rl.run.tensor_files import read_network_file

TRAIN = ["train", "breakout", *QUICK, "--track", "jsonl"]


class Tests:
    """In the place of tests in training: what each gives is scripted; the seeds and the calls are kept."""

    __test__ = False

    def __init__(self, returns: list[float], during: Callable[[], None] = lambda: None) -> None:
        self._returns, self._during = iter(returns), during
        self.seeds: list[int] = []

    def __call__(self, config: Any, network: Any, *, seed: int, tick: Callable[[], None]) -> Episodes:
        self.seeds.append(seed)
        self._during()
        tick()
        return Episodes((next(self._returns),), (1,))


def scores_of(run: Path) -> list[tuple[int, float, float]]:
    """Step, score and best score of each test."""
    return [
        (row["step"], row["eval/return_mean"], row["eval/best"])
        for row in rows_of(run)
        if "eval/return_mean" in row
    ]


def test_the_network_of_the_greatest_test_is_kept_and_of_equals_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(monitor, "run_epoch_evaluation", Tests([1.0, 3.0, 2.0, 3.0]))
    assert wn_rl(*TRAIN, "--evaluation.period", "150", "--run-dir", str(run)) == 0
    assert [best for _, _, best in scores_of(run)] == [1.0, 3.0, 3.0, 3.0]
    _, metadata = read_network_file(run / "best_network.safetensors")
    assert (metadata["step"], float(metadata["eval/return_mean"])) == (str(scores_of(run)[1][0]), 3.0)


def test_each_test_of_each_seed_plays_games_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = Tests([0.0] * 4)
    monkeypatch.setattr(monitor, "run_epoch_evaluation", tests)
    for seed in ("1", "2"):
        assert wn_rl(*TRAIN, "--seed", seed, "--run-dir", str(tmp_path / seed)) == 0
    assert len(set(tests.seeds)) == len(tests.seeds) == 4


def test_a_test_that_was_interrupted_is_made_again_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stopped = Tests([], during=lambda: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(monitor, "run_epoch_evaluation", stopped)
    assert wn_rl(*TRAIN, "--run-dir", str(run)) == 130
    assert scores_of(run) == []
    again = Tests([4.0, 5.0])
    monkeypatch.setattr(monitor, "run_epoch_evaluation", again)
    assert wn_rl("resume", str(run)) == 0
    assert [score for _, score, _ in scores_of(run)] == [4.0, 5.0]
    assert again.seeds[0] == stopped.seeds[0]
    assert [step for step, *_ in scores_of(run)] == [300, 600]


def test_a_second_signal_ends_the_run_at_once_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(monitor, "run_epoch_evaluation", Tests([], during=twice))
    assert wn_rl(*TRAIN, "--run-dir", str(run)) == 128 + signal.SIGTERM
    assert status_of(run) == {**status_of(run), "status": "interrupted", "message": "stopped at once"}
    assert newest_checkpoint(run)[0] == 200  # the test was at step 300


def newest_checkpoint(run: Path) -> tuple[int, Any]:
    folder, _, config = open_run(run)
    found = CheckpointStore(folder.checkpoints, identity(config)).load_state(lambda line: None)
    assert found is not None
    return found


def test_numbers_that_are_none_never_reach_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is due before the next checkpoint is, so that only the checkpoint itself can notice."""
    run = tmp_path / "run"
    learn = Learner.learn

    def spoil(learner: Learner, num_updates: int) -> None:
        learn(learner, num_updates)
        if learner.num_updates > 50:  # step 300
            with torch.no_grad():
                next(learner.networks.online.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Learner, "learn", spoil)
    quiet = ["--log-period", "100000", "--evaluation.period", "0"]
    assert wn_rl(*TRAIN, *quiet, "--run-dir", str(run)) == 1
    assert status_of(run)["status"] == "failed"
    step, state = newest_checkpoint(run)
    assert step == 200
    assert all(bool(torch.isfinite(value).all()) for value in state["experiment"]["learner"]["online"].values())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, set by hand; the other one goes backwards."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -now[0])
    return now


def test_a_stopwatch_counts_by_the_monotonic_clock_and_not_while_paused(clock: list[float]) -> None:
    """Also where what it waits for is interrupted."""
    watch = monitor.Stopwatch()
    clock[0] += 5
    with contextlib.suppress(Interrupted), watch.paused():
        clock[0] += 100
        raise Interrupted
    clock[0] += 2
    assert watch.seconds() == 7


def test_seconds_go_on_after_a_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert wn_rl(*TRAIN, "--keep-replay", "--run-dir", str(run)) == 0
    before = [row["seconds"] for row in rows_of(run) if "seconds" in row]
    assert wn_rl("resume", str(run), "--steps", "800") == 0
    after = [row["seconds"] for row in rows_of(run) if "seconds" in row]
    assert after[: len(before)] == before
    assert after == sorted(after)
    assert len(after) > len(before)
    assert RunFolder(run).is_finished()


def test_a_resumed_run_remembers_its_best_test_and_when_each_thing_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(monitor, "run_epoch_evaluation", Tests([5.0, 4.0]))
    assert wn_rl(*TRAIN, "--keep-replay", "--run-dir", str(run)) == 0
    monkeypatch.setattr(monitor, "run_epoch_evaluation", Tests([3.0]))
    assert wn_rl("resume", str(run), "--steps", "900") == 0
    assert scores_of(run) == [(300, 5.0, 5.0), (600, 4.0, 5.0), (900, 3.0, 5.0)]
    assert read_network_file(run / "best_network.safetensors")[1]["step"] == "300"
    assert [row["step"] for row in rows_of(run) if "updates" in row] == [200, 400, 600, 800, 900]


def test_rows_of_training_and_of_tests(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is since the row before, tests excluded; tests are of the acting network; every other has a video."""
    rows: list[dict[str, Any]] = []
    tested: list[object] = []
    filmed: list[object] = []

    def test(config: Any, network: object, *, seed: int, tick: Any) -> Episodes:
        tested.append(network)
        clock[0] += 1000
        return Episodes((1.0, 3.0), (10, 30))

    monkeypatch.setattr(monitor, "run_epoch_evaluation", test)
    monkeypatch.setattr(monitor, "write_network_file", lambda *rest: None)
    monkeypatch.setattr(
        monitor, "record_episode", lambda config, network, path, **rest: filmed.append((network, path.name))
    )
    config = minatar("breakout")
    evaluation = dataclasses.replace(config.evaluation, period=150, video_period=2)
    config = dataclasses.replace(config, steps=1_000, log_period=100, evaluation=evaluation)
    tracker: Any = SimpleNamespace(log=rows.append, video=lambda *rest: None)
    folder: Any = SimpleNamespace(best_network=Path("best"), videos=Path("videos"))
    watch = monitor.Monitor(config, folder, tracker, SimpleNamespace(), monitor.StopRequest())  # type: ignore[arg-type]
    online = SimpleNamespace(state_dict=dict)
    networks = SimpleNamespace(
        evaluation_network=lambda: "acting", evaluated_state=online.state_dict, max_q=lambda states: 2.5 * states
    )
    monkeypatch.setattr(monitor, "take_metrics", lambda dqn: {})
    environments = make(config.suite, config.game, config.environment, num_envs=1, seed=0)
    experiment: Any = SimpleNamespace(learner=SimpleNamespace(networks=networks), held_out_states=None)
    experiment.environments = environments
    for step in range(0, 601, 50):
        experiment.num_steps, experiment.num_frames = step, 4 * step
        watch(experiment)
        clock[0] += 5
        experiment.held_out_states = 2
    assert [row["frames_per_second"] for row in rows if "seconds" in row] == [40.0] * 6
    assert [row["seconds"] for row in rows if "seconds" in row] == [10, 1020, 1030, 2040, 3050, 3060]
    tests = [row for row in rows if "eval/best" in row]
    assert [row["step"] for row in tests] == [150, 300, 450, 600]
    assert tests[0] == {
        "step": 150, "frames": 600, "eval/return_mean": 2.0, "eval/return_std": 1.0, "eval/length_mean": 20.0,
        "eval/episodes": 2, "eval/best": 2.0, "eval/overestimation": None, "held_out_q": 5.0,
    }  # fmt: skip
    assert tested == ["acting"] * 4
    assert filmed == [("acting", "step_000000000300.mp4"), ("acting", "step_000000000600.mp4")]


def test_the_last_row_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a run was killed after its last step and before its end."""
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(monitor.Monitor, "_save", lambda *rest: None)
    config = minatar("breakout")
    evaluation = dataclasses.replace(config.evaluation, period=0)
    config = dataclasses.replace(config, steps=550, log_period=100, evaluation=evaluation)
    tracker: Any = SimpleNamespace(log=rows.append)
    folder: Any = SimpleNamespace()
    watch = monitor.Monitor(config, folder, tracker, folder, monitor.StopRequest())
    monkeypatch.setattr(monitor, "take_metrics", lambda dqn: {"step": dqn.num_steps})
    experiment: Any = SimpleNamespace(num_frames=0)
    for step in (*range(0, 551, 50), 550):
        experiment.num_steps = step
        watch(experiment)
    assert [row["step"] for row in rows] == [100, 200, 300, 400, 500, 550]
