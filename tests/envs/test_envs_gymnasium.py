"""Any Gymnasium environment: what is made of its spaces, what is refused, and its state; then whole runs of it."""

import contextlib
import dataclasses
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import own_environments as own
import pytest
import torch
from environment_tools import (
    actions_for,
    assert_equal_steps,
    check_restore,
    follow_gymnasium,
    make,
    one_line,
    play,
)
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from resume_tools import assert_same_run, command, finish, num_rows, start_and_stop
from run_tools import rows_of, status_of, wn_rl

from wn_rl import envs
from wn_rl.agents.episodes import EpisodeReturns
from wn_rl.agents.experiment import make_dqn, take_metrics
from wn_rl.envs.base import InvalidOutput, Step, lane_seed
from wn_rl.envs.gymnasium_lanes import PROBE_STEPS, describe
from wn_rl.presets import preset_for_frames, vectors
from wn_rl.registry import PRESETS

CATCH, BIG_CATCH, CORRIDOR, NOISY, AGEING, BROKEN = (
    f"own_environments:Own/{name}"
    for name in ("Catch-v1", "BigCatch-v0", "Corridor-v0", "Noisy-v0", "Ageing-v0", "Broken-v0")
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find the environments of the tests, as a user's are found in the folder of the command."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tests, tests.parent))))


def register(name: str, *arguments: Any, **keywords: Any) -> str:
    """An environment of these spaces, and its id."""
    gymnasium.registry.pop(f"Own/{name}-v0", None)
    gymnasium.register(f"Own/{name}-v0", lambda: own.Spaces(*arguments, **keywords))
    describe.cache_clear()
    return f"Own/{name}-v0"


# What it shows.


@pytest.mark.parametrize("env_id", [CATCH, CORRIDOR, "CartPole-v1"])
def test_lanes_against_gymnasium(env_id: str) -> None:
    """Observations, rewards, ends and limits of Gymnasium's own stepping, each game from its lane's next seed."""
    ours, theirs = make("gymnasium", env_id, 1, seed=8), gymnasium.make(env_id, disable_env_checker=True)
    see = (lambda image: image.transpose(2, 0, 1)) if env_id == CATCH else np.asarray
    games, cut = follow_gymnasium(ours, theirs, num_steps=300, seed=8, see=see)
    assert games > 5
    assert cut > 0 or env_id != CORRIDOR
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("box", "frame_shape", "channels_last", "dtype", "scale"),
    [
        (spaces.Box(-1, 1, (3,), np.float64), (3,), False, "float32", 1.0),
        (spaces.Box(0, 9, (3,), np.int64), (3,), False, "float32", 1.0),
        (spaces.Box(0, 1, (), np.float32), (1,), False, "float32", 1.0),
        (spaces.Box(0, 255, (128,), np.uint8), (128,), False, "uint8", 1 / 255),
        (spaces.Box(0, 255, (48, 40, 3), np.uint8), (3, 48, 40), True, "uint8", 1 / 255),
        (spaces.Box(0, 255, (3, 48, 40), np.uint8), (3, 48, 40), False, "uint8", 1 / 255),
        (spaces.Box(0, 255, (48, 40, 1), np.uint8), (1, 48, 40), True, "uint8", 1 / 255),
        (spaces.Box(0, 255, (48, 40), np.uint8), (48, 40), False, "uint8", 1 / 255),
        (spaces.Box(0, 1, (10, 10, 6), np.bool_), (6, 10, 10), True, "uint8", 1.0),
        (spaces.Box(0, 1, (10, 10, 10), np.uint8), (10, 10, 10), True, "uint8", 1.0),
        (spaces.Box(0, 1, (12, 10, 10), np.uint8), (12, 10, 10), False, "uint8", 1.0),
        (spaces.Box(0, 1, (10, 10, 12), np.uint8), (12, 10, 10), True, "uint8", 1.0),
        (spaces.Box(0, 255, (20, 20, 3), np.float32), (3, 20, 20), True, "float32", 1 / 255),
        (spaces.Box(-1, 1, (20, 20), np.float32), (20, 20), False, "float32", 1.0),
        (spaces.Box(-np.inf, np.inf, (20, 20), np.float32), (20, 20), False, "float32", 1.0),
        (spaces.Box(0, np.finfo(np.float32).max, (20, 20), np.float32), (20, 20), False, "float32", 1.0),
        (spaces.Box(0, np.iinfo(np.int16).max, (20, 20), np.int16), (20, 20), False, "float32", 1.0),
    ],
    ids=str,
)
def test_frames_of_spaces(
    box: spaces.Box, frame_shape: tuple[int, ...], channels_last: bool, dtype: str, scale: float
) -> None:
    environments = make("gymnasium", register("Shape", spaces.Discrete(2), box), 1)
    spec = environments.spec
    assert (spec.frame_shape, spec.dtype, spec.scale) == (frame_shape, dtype, scale)
    assert (f"taken to be {'last' if channels_last else 'first'}" in spec.guess) == (len(box.shape) == 3)
    observation = environments.reset().observation[0]
    assert (observation.shape, observation.dtype) == (frame_shape, dtype)
    box.seed(lane_seed(3, 0, 0))
    shown = box.sample()
    expected = shown.transpose(2, 0, 1) if channels_last else shown
    np.testing.assert_array_equal(observation, np.reshape(expected, frame_shape).astype(dtype))


def numbers(dtype: Any, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    elements = st.floats(0, 2**20, width=32).map(dtype) if np.dtype(dtype).kind == "f" else None
    return hnp.arrays(dtype, shape, elements=elements)


DTYPES = st.sampled_from([np.uint8, np.bool_, np.int16, np.int64, np.float32, np.float64])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
ODD = st.sampled_from([None, "text", {}, [[1], 2], 0.5, 1, [1.0], np.zeros(2, dtype=complex)])


@settings(max_examples=150)
@given(st.data(), DTYPES, SHAPES, st.sampled_from([1, 3, 255]))
def test_an_observation_is_shown_as_it_is_or_refused(
    data: st.DataObject, dtype: Any, shape: tuple[int, ...], maximum: int
) -> None:
    box = spaces.Box(0, 1 if dtype is np.bool_ else maximum, shape, dtype)
    environments = make("gymnasium", register("Any", spaces.Discrete(2), box), 1)
    given_shapes = st.just(shape) | SHAPES
    drawn = data.draw(st.tuples(DTYPES, given_shapes).flatmap(lambda kind: numbers(*kind)) | ODD)
    environments._lanes[0]._env.unwrapped.shown = drawn  # type: ignore[attr-defined]
    shown = drawn if isinstance(drawn, np.ndarray) else np.array(drawn if drawn != [[1], 2] else None)
    values = shown.ravel().tolist()
    fits = shown.shape == shape and shown.dtype.kind in ("biuf" if box.dtype.kind == "f" else "biu")
    if box.dtype.kind != "f":
        lowest = 0 if dtype is np.bool_ else np.iinfo(dtype).min
        fits = fits and all(lowest <= value <= box.high.max() for value in values)
    if fits:
        observation = environments.reset().observation[0]
        expected = shown.transpose(2, 0, 1) if environments.spec.guess.find("be last") > 0 else shown
        np.testing.assert_array_equal(observation, expected.reshape(observation.shape).astype(np.float32))
    else:
        with pytest.raises(
            InvalidOutput, match=r"Own/Any-v0, episode of seed \d+, step 0: .*its space has"
        ) as error:
            environments.reset()
        assert f"{np.dtype(dtype)} of shape {shape}" in one_line(error)


@pytest.mark.parametrize(
    ("frame_shape", "preset", "network"),
    [
        ((4,), "vectors", "mlp"),
        ((2, 7), "vectors", "mlp"),
        ((3, 36, 36), "images", "nature_cnn"),
        ((84, 84), "images", "nature_cnn"),
        ((3, 35, 84), "grids", "minatar_cnn"),
        ((6, 3, 3), "grids", "minatar_cnn"),
    ],
)
def test_the_preset_has_a_network_for_the_frames(frame_shape: tuple[int, ...], preset: str, network: str) -> None:
    box = spaces.Box(0, 1, frame_shape, np.float32)
    config = PRESETS[preset_for_frames(frame_shape)](register("Preset", spaces.Discrete(2), box))
    assert (config.preset, config.suite, config.network.name) == (preset, "gymnasium", network)
    learning = dataclasses.replace(config.learning, replay_capacity=2_000, replay_start=100)
    make_dqn(dataclasses.replace(config, learning=learning), torch.device("cpu"))  # it can be made


def test_the_axis_of_the_channels_is_said_or_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for channels, frame_shape in (("first", (8, 8, 3)), ("last", (3, 8, 8))):
        assert make("gymnasium", CATCH, 1, channels=channels).spec.frame_shape == frame_shape
    trained(tmp_path / "guessed", "--env-id", CATCH, *QUICK)
    assert capsys.readouterr().err.count("channels are taken to be last; --environment.channels first") == 1
    config = trained(tmp_path / "set", "--env-id", CATCH, *QUICK, "--environment.channels", "last")
    assert config["environment"]["channels"] == "last"
    assert "taken to be" not in capsys.readouterr().err


def test_an_array_of_one_reward_is_taken_and_the_last_observation_may_be_nan() -> None:
    environments = make("gymnasium", "own_environments:Own/OddEnd-v0", 1)
    steps = [environments.reset(), *play(environments, np.zeros((9, 1), dtype=np.int64))]
    assert [step.reward[0] for step in steps[1:5]] == [0.5] * 4
    [end] = [number for number, step in enumerate(steps[:6]) if not step.discount[0]]
    np.testing.assert_array_equal(steps[end].observation, 0)


def test_words_for_actions() -> None:
    assert make("gymnasium", CATCH, 1).spec.action_meanings == ("1", "2", "3")
    assert make("classic", "cartpole", 1).spec.action_meanings == ("LEFT", "RIGHT")


# Names.


def test_the_newest_version_is_taken_and_the_module_kept() -> None:
    assert envs.normalize_game("gymnasium", "CartPole") == "CartPole-v1"
    assert envs.normalize_game("gymnasium", "own_environments:Own/Catch") == CATCH
    assert envs.normalize_game("gymnasium", "own_environments:Own/Catch-v0") == "own_environments:Own/Catch-v0"


def test_names_to_choose_from_have_those_of_imported_modules_in_their_newest_version() -> None:
    names = envs.games("gymnasium")
    assert {"CartPole-v1", "Own/Catch-v1"} <= set(names)
    assert not {"CartPole-v0", "Own/Catch-v0", "Pendulum-v1"} & set(names)
    assert not [name for name in names if name.startswith(("ALE/", "phys2d/", "GymV"))]


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("CartPol-v1", "CartPole"),
        ("CartPole-v7", "v7"),
        ("Own/Cach-v0", "Catch"),
        ("no_such_module:Env-v0", "no_such_module"),
        ("a b c", "a b c"),
        ("Pendulum-v1", "actions of a Box space, and Q-learning needs Discrete ones"),
        ("FrozenLake-v1", "shows a Discrete space"),
        ("Blackjack-v1", "shows a Tuple space"),
        (register("Dict", spaces.Discrete(2), spaces.Dict(a=spaces.Discrete(2))), "FlattenObservation"),
        (register("Video", spaces.Discrete(2), spaces.Box(0, 1, (2, 8, 8, 3))), "Box space of shape (2, 8, 8, 3)"),
        (register("Empty", spaces.Discrete(2), spaces.Box(0, 1, (0,))), "Box space of shape (0,)"),
        (register("Many", spaces.MultiDiscrete([2, 2]), spaces.Box(0, 1, (2,))), "MultiDiscrete"),
        (
            register("Liar", spaces.Discrete(2), spaces.Box(0, 1, (2,)), np.zeros(3)),
            "is float64 of shape (3,), and",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_one_clear_line(
    env_id: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        make("gymnasium", env_id, 1)
    one_line(error)
    for arguments in (["--env-id", env_id], [env_id, "--suite", "gymnasium"]):
        assert wn_rl("train", *arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert says in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "entry_point"), [("Lacking", "no_such_module:Env"), ("NoEnv", dict)])
def test_what_its_constructor_cannot_do_is_one_clear_line(name: str, entry_point: Any) -> None:
    gymnasium.registry.pop(f"Own/{name}-v0", None)
    gymnasium.register(f"Own/{name}-v0", entry_point)
    with pytest.raises(ValueError, match=f"Own/{name}-v0 cannot be opened") as error:
        make("gymnasium", f"Own/{name}-v0", 1)
    one_line(error)


def test_without_a_picture_none_is_drawn() -> None:
    environments = make("gymnasium", CORRIDOR, 1)
    environments.reset()
    with pytest.raises(ValueError, match="no render mode rgb_array") as error:
        environments.render()
    one_line(error)


# State.


def test_what_does_not_repeat_says_so_and_begins_its_next_games() -> None:
    original, restored = make("gymnasium", NOISY, 3), make("gymnasium", NOISY, 3)
    assert not original.spec.repeatable
    original.reset()
    play(original, actions_for(original, 10))
    state = original.state_dict()
    state["over"] = [False, True, False]  # the game of lane 1 has just ended: it is not lost
    assert restored.load_state_dict(state) == [0, 2]
    [step] = play(restored, actions_for(restored, 1))
    assert step.first.all()
    places = [restored_place(lane, state["games"][lane]) for lane in range(3)]
    np.testing.assert_allclose(step.observation[:, 0], places)  # the games that would have come next


def restored_place(lane: int, game: int) -> float:
    env = gymnasium.make(NOISY, disable_env_checker=True)
    return float(env.reset(seed=lane_seed(3, lane, game))[0][0])


def test_a_game_that_goes_another_way_when_played_again_is_lost() -> None:
    own.Ageing.steps_of_all = 0
    describe.cache_clear()
    original, restored = make("gymnasium", AGEING, 1), make("gymnasium", AGEING, 1)
    assert original.spec.repeatable  # as far as the first steps show
    original.reset()
    play(original, actions_for(original, PROBE_STEPS + 70))
    own.Ageing.steps_of_all += 2
    assert restored.load_state_dict(original.state_dict()) == [0]
    assert play(restored, actions_for(restored, 1))[0].first.all()


def test_a_lost_game_counts_nowhere() -> None:
    episodes = EpisodeReturns(2)
    played, begun = (
        Step(np.zeros((2, 1)), np.ones(2, np.float32), np.ones(2, np.float32), np.full(2, first))
        for first in (False, True)
    )
    for _ in range(2):
        episodes.add(played)
    episodes.forget([1])
    assert episodes.add(begun) == [(0, 2.0, 2)]


# Processes.


def test_processes_show_what_lanes_show_and_restore_each_others_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("no string"), None])  # Python passes over these
    lanes, processes = (make("gymnasium", CATCH, 2, processes=number) for number in (0, 2))
    try:
        actions = actions_for(lanes, 60)
        expected = [lanes.reset(), *play(lanes, actions)]
        assert_equal_steps([processes.reset(), *play(processes, actions)], expected)
        np.testing.assert_array_equal(processes.render(), lanes.render())
        assert_equal_steps([processes.reset(), *play(processes, actions[:20])], expected[:21])  # anew
        check_restore(processes, processes, actions[:30], at=[0, 3, 7, 8, 20])
        kept = processes.reset(), *play(processes, actions[:10])
        assert_equal_steps(list(kept), expected[:11])  # the receiver's own
        with pytest.raises(RuntimeError):
            processes.recv()
        with pytest.raises(ValueError, match="actions must be"):
            processes.send(np.array([0, 3]))
    finally:
        processes.send(np.array([0, 0]))  # a step is under way when they are closed
        processes.close()
        processes.close()


@pytest.mark.parametrize("lane", [0, 1])
@pytest.mark.parametrize("in_a_step", [True, False])
def test_a_lane_whose_process_dies_is_named_and_ends_them_all(lane: int, in_a_step: bool) -> None:
    environments = make("gymnasium", CATCH, 2, processes=2)
    environments.reset()
    processes = [worker.process for worker in environments._workers]  # type: ignore[attr-defined]
    if in_a_step:
        environments.send(np.array([0, 0]))
    processes[lane].kill()
    processes[lane].wait()
    if in_a_step:
        with contextlib.suppress(ChildProcessError):  # the lane may have answered before its end
            environments.recv()
    if any(process.poll() is None for process in processes):
        with pytest.raises(ChildProcessError, match=rf"the process of lane {lane} has died \(exit code -9\)"):
            play(environments, np.zeros((1, 2), dtype=np.int64))
    assert all(process.poll() is not None for process in processes)
    environments.close()


def test_what_cannot_be_pickled_is_one_clear_line() -> None:
    box = spaces.Box(0, 1, (2,))
    box.lock = threading.Lock()  # type: ignore[attr-defined]
    env_id = register("Locked", spaces.Discrete(2), box)
    with pytest.raises(ValueError, match="the environment cannot be pickled") as error:
        make("gymnasium", env_id, 1, processes=1)
    one_line(error)


def test_processes_end_with_environments_that_are_dropped() -> None:
    before = len(os.listdir("/proc/self/fd"))
    environments = make("gymnasium", CATCH, 2, processes=2)
    processes = [worker.process for worker in environments._workers]  # type: ignore[attr-defined]
    del environments
    gc.collect()
    for process in processes:
        process.wait(60)
    assert len(os.listdir("/proc/self/fd")) == before


def test_processes_that_are_dead_can_be_closed() -> None:
    environments = make("gymnasium", CATCH, 2, processes=2)
    environments.reset()
    environments.send(np.array([0, 0]))
    environments._workers[1].process.kill()  # type: ignore[attr-defined]
    environments.close()
    environments.close()


def test_an_error_of_the_environment_s_own_comes_through() -> None:
    environments = make("gymnasium", BROKEN, 2, processes=2)
    environments.reset()
    with pytest.raises(FileNotFoundError, match="no such level"):
        play(environments, np.zeros((1, 2), dtype=np.int64))
    environments.close()


NOT_FINITE = pytest.mark.parametrize(
    ("name", "what"),
    [("NoReward", "the reward is nan"), ("NoSight", "the observation has numbers that are not finite")],
)


@NOT_FINITE
@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_not_finite_is_said_with_its_place(name: str, what: str, processes: int) -> None:
    environments = make("gymnasium", f"own_environments:Own/{name}-v0", 2, processes=processes)
    environments.reset()
    with pytest.raises(FloatingPointError, match=rf"Own/{name}-v0, episode of seed \d+, step 40: {what}"):
        play(environments, np.zeros((50, 2), dtype=np.int64))
    environments.close()


def test_a_picture_that_fails_is_a_value_error() -> None:
    environments = make("gymnasium", BROKEN, 1)
    environments.reset()
    with pytest.raises(ValueError, match=r"Own/Broken-v0 cannot draw: RuntimeError: no display"):
        environments.render()


def test_processes_know_of_lost_games() -> None:
    processes = make("gymnasium", NOISY, 2, processes=2)
    try:
        with pytest.raises(RuntimeError):
            processes.send(np.array([0, 0]))
        processes.reset()
        play(processes, np.zeros((3, 2), dtype=np.int64))
        assert processes.load_state_dict(processes.state_dict()) == [0, 1]
        assert play(processes, np.zeros((1, 2), dtype=np.int64))[0].first.all()
    finally:
        processes.close()


# Runs.

QUICK = [
    "--steps", "600", "--log-period", "200", "--checkpoint-period", "200", "--learning.replay-start", "100",
    "--learning.replay-capacity", "2000", "--learning.epsilon-steps", "200", "--network.init-states", "32",
    "--evaluation.period", "300", "--evaluation.steps", "100", "--evaluation.held-out-states", "16",
    "--learning.target-period", "100", "--track", "jsonl", "--torch-threads", "1", "--device", "cpu",
]  # fmt: skip


def trained(folder: Path, *arguments: str) -> dict[str, Any]:
    """The config of a short run in the folder."""
    assert wn_rl("train", *arguments, "--run-dir", str(folder)) == 0
    return dict(json.loads((folder / "config.json").read_text())["config"])


@NOT_FINITE
def test_a_run_ends_where_its_environment_is_not_finite(
    name: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert wn_rl("train", "--env-id", f"own_environments:Own/{name}-v0", *QUICK, "--run-dir", str(run)) == 1
    assert f"step 40: {what}" in status_of(run)["message"]
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_not_finite_from_the_first_game_on_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert wn_rl("train", "--env-id", "own_environments:Own/NoRewardAtOnce-v0", *QUICK, "--run-dir", str(run)) == 1
    assert re.fullmatch(
        r"wn-rl train: Own/NoRewardAtOnce-v0, episode of seed 0, step 3: the reward is nan\n",
        capsys.readouterr().err,
    )
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("WrongShape", "the observation is float64 of shape (1,), and its space has float64 of shape (2,)"),
        ("NoneReward", "the reward is None, not one number"),
    ],
)
@pytest.mark.parametrize("processes", [[], ["--environment.processes", "2"]])
def test_a_run_ends_in_one_line_where_its_environment_breaks_its_word(
    name: str, what: str, processes: list[str], tmp_path: Path
) -> None:
    words = ["train", "--env-id", f"own_environments:Own/{name}-v0", *QUICK, *processes, "--run-dir", "run"]
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert re.search(rf"Own/{name}-v0, episode of seed \d+, step 40: {re.escape(what)}", done.stderr)
    assert "Traceback" not in done.stderr
    assert status_of(tmp_path / "run")["status"] == "failed"


def test_an_agent_is_exported_without_its_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "run", "--env-id", CATCH, *QUICK)
    monkeypatch.setattr(envs, "make", None)
    for changes, code in (({}, 0), ({"spec": {"scale": 1}}, 2), ({"spec": None}, 2)):
        record = json.loads((tmp_path / "run" / "config.json").read_text())
        (tmp_path / "run" / "config.json").write_text(json.dumps({**record, **changes}))
        assert wn_rl("export", str(tmp_path / "run"), "--out", str(tmp_path / "agent"), "--no-onnx") == code


@pytest.mark.parametrize(("env_id", "preset"), [(CATCH, "grids"), (BIG_CATCH, "images"), (CORRIDOR, "vectors")])
def test_train_evaluate_play_and_resume(
    env_id: str, preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, video = tmp_path / "run", tmp_path / "game.mp4"
    config = trained(run, "--env-id", env_id, *QUICK, "--evaluation.video-period", "2", "--keep-replay")
    assert (config["suite"], config["game"], config["preset"]) == ("gymnasium", env_id, preset)
    assert wn_rl("resume", str(run), "--steps", "700") == 0
    assert status_of(run)["step"] >= 700
    capsys.readouterr()
    assert wn_rl("evaluate", str(run), "--episodes", "3", "--random-policy") == 0
    assert f"{env_id}, best network" in capsys.readouterr().out
    assert wn_rl("play", str(run), "--video", str(video)) == (2 if env_id == CORRIDOR else 0)
    if env_id == CORRIDOR:
        [line] = capsys.readouterr().err.strip().splitlines()
        assert "Own/Corridor-v0 gives no picture" in line
        assert not video.exists()
    else:
        assert video.stat().st_size > 1000
        assert list((run / "videos").glob("*.mp4"))


def test_every_field_is_still_a_flag_and_the_id_may_be_the_game(tmp_path: Path) -> None:
    changed = ["--network.name", "mlp", "--network.stack", "2", "--preset", "classic"]
    config = trained(tmp_path / "run", "--env-id", CATCH, *QUICK, *changed)
    assert config["suite"] == "gymnasium"
    assert (config["network"]["name"], config["network"]["stack"], config["preset"]) == ("mlp", 2, "classic")
    config = trained(tmp_path / "other", "CartPole", "--suite", "gymnasium", *QUICK)
    assert (config["game"], config["preset"]) == ("CartPole-v1", "vectors")


@pytest.mark.parametrize("arguments", [["breakout"], ["--suite", "minatar"]])
def test_an_id_and_a_game_are_one_too_many(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("train", *arguments, "--env-id", CATCH) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "give it without GAME and --suite" in line


def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, victim = tmp_path / "whole", tmp_path / "victim"
    more = ["--steps", "2500", "--evaluation.period", "1200", "--environment.processes", "2", "--keep-replay"]
    arguments = ["--env-id", CATCH, *QUICK, *more]
    finish("train", *arguments, "--run-dir", whole)
    assert start_and_stop(["train", *arguments, "--run-dir", victim], signal.SIGKILL, victim, 4) == -9
    assert 0 < num_rows(victim) < num_rows(whole)
    finish("--import", "own_environments", "resume", victim)
    assert_same_run(whole, victim)


def test_a_run_of_what_does_not_repeat_says_so_at_its_start_and_at_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    trained(run, "--env-id", NOISY, *QUICK, "--keep-replay")
    assert f"{NOISY} does not repeat an episode from its seed" in capsys.readouterr().err
    assert wn_rl("resume", str(run), "--steps", "900") == 0
    said = capsys.readouterr().err
    assert f"{NOISY} does not repeat an episode from its seed" in said
    assert "lanes could not restore their episode" in said
    assert status_of(run) == {**status_of(run), "status": "finished", "step": 900}
    assert all(row["train/length"] is None or row["train/length"] <= 30 for row in rows_of(run) if "loss" in row)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_the_terminal_saves_a_run_of_processes(tmp_path: Path, number: signal.Signals) -> None:
    """It reaches every process of the terminal's group, and only the run itself must heed it."""
    run = tmp_path / "run"
    arguments = ["train", "--env-id", CATCH, *QUICK, "--steps", "1000000", "--environment.processes", "2"]
    process = subprocess.Popen(
        command(*arguments, "--run-dir", run), stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None and num_rows(run) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number, said.decode()
    assert "saved at step" in status_of(run)["message"]


@pytest.mark.parametrize(
    "flag", [["--env-id", CORRIDOR], [f"--env-id={CORRIDOR}"], ["--env_id", CORRIDOR]], ids=str
)
def test_the_id_as_a_flag_in_any_spelling(flag: list[str], tmp_path: Path) -> None:
    config = trained(tmp_path / "run", *flag, "--steps", "150", "--learning.replay-start", "100")
    assert config["game"] == CORRIDOR


def test_in_python() -> None:
    base = vectors(CORRIDOR)
    learning = dataclasses.replace(base.learning, replay_start=100, replay_capacity=1000, epsilon_steps=500)
    config = dataclasses.replace(base, steps=1_000, learning=learning)
    experiment = make_dqn(config, torch.device("cpu"))
    experiment.run(config.steps, lambda experiment: None)
    assert take_metrics(experiment)["train/return_last_100"] is not None


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    games = [f"gymnasium/{CORRIDOR}", "minatar/breakout"]
    arguments = ["--arms", "normal", "--seeds", "1", "--out", str(tmp_path / "out"), *QUICK]
    assert wn_rl("compare", "--games", *games, *arguments, "--dry-run") == 0
    assert "gymnasium-own_environments-Own-Corridor-v0-normal" in capsys.readouterr().out
    assert wn_rl("compare", "--games", CORRIDOR, "--suite", "gymnasium", *arguments) == 0
    [run] = (tmp_path / "out" / "runs").iterdir()
    assert run.name == "gymnasium-own_environments-Own-Corridor-v0-normal-lr0.001-seed1"
    assert json.loads((run / "config.json").read_text())["config"]["preset"] == "vectors"
    assert CORRIDOR in (tmp_path / "out" / "report" / "report.md").read_text()
