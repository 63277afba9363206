"""Our games as Gymnasium environments: the same frames, rewards and ends as our own loop sees."""

import pickle
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wn_rl import envs
from wn_rl.config import EnvironmentConfig
from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.envs.base import Lanes

GAMES = [("minatar", "breakout", 1), ("minatar", "seaquest", 2), ("classic", "cartpole", 2), ("atari", "pong", 4)]


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity:UserWarning")  # vectors have no bounds
@pytest.mark.parametrize(("suite", "game", "stack"), GAMES)
def test_gymnasium_accepts_it(suite: str, game: str, stack: int) -> None:
    if suite == "classic":
        env: Any = GameEnv(suite, game, stack=stack)
    else:
        env = gymnasium.make(id_of(suite, game), stack=stack).unwrapped
    check_env(env, skip_render_check=suite == "classic")
    if suite != "classic":  # whose pictures need pygame
        picture = env.render()
        assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert env.observation_space.shape[0] % stack == 0
    env.close()


def id_of(suite: str, game: str) -> str:
    title = {"atari": "Atari", "minatar": "MinAtar"}[suite]
    return f"wn_rl/{title}-{game.title().replace('_', '')}-v0"


def test_importing_wn_rl_registers_every_game_and_imports_neither_torch_nor_an_emulator() -> None:
    check = """
import wn_rl, gymnasium, sys
assert not {"torch", "ale_py", "minatar", "cv2"} & set(sys.modules)
print(*[name for name in gymnasium.registry if name.startswith("wn_rl/")])
"""
    said = subprocess.run([sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [
        id_of(suite, game) for suite in ("atari", "minatar") for game in envs.games(suite)
    ]
    assert not [name for name in envs.games("gymnasium") if name.startswith("wn_rl/")]


@pytest.mark.parametrize(("game", "lives"), [("atari", 5), ("minatar", None)])
def test_a_registered_game_has_pictures_and_lives_and_can_be_pickled(game: str, lives: int | None) -> None:
    env_id = id_of(game, "breakout")
    env = gymnasium.make(env_id, render_mode="rgb_array")
    for spec in (env.spec, pickle.loads(pickle.dumps(env.spec)), pickle.loads(pickle.dumps(env)).spec):
        assert spec == env.spec
    _, info = env.reset(seed=1)
    for _ in range(200):
        assert info == ({} if lives is None else {"lives": lives})
        *_, terminated, _, after = env.step(1)  # FIRE, and never move
        if terminated or (lives is not None and after["lives"] < lives):
            break
        info = after
    else:
        raise AssertionError("no life was lost")
    assert env.render().shape[2] == 3
    blind = gymnasium.make(env_id, render_mode=None)
    blind.reset()
    assert blind.unwrapped.render() is None
    lanes = gymnasium.make_vec(env_id, num_envs=2, vectorization_mode="async")
    assert lanes.reset(seed=1)[0].shape[0] == 2
    lanes.close()


@pytest.mark.parametrize(("suite", "game", "stack"), GAMES)
def test_it_shows_what_our_lanes_show(suite: str, game: str, stack: int) -> None:
    """Several games, each to its end, against `envs.make` and a stack kept by hand."""
    env = GameEnv(suite, game, stack=stack, max_episode_frames=600)
    lanes = envs.make(
        suite, game, EnvironmentConfig(life_loss_terminates=False, max_episode_frames=600), num_envs=1, seed=5
    )
    actions = np.random.default_rng(0)
    observation, _ = env.reset(seed=5)
    step = lanes.reset()
    start = [np.zeros_like(step.observation[0])] * (stack - 1)
    frames = [*start, step.observation[0]]
    for _ in range(1000):
        kept = observation.copy()
        np.testing.assert_array_equal(observation.ravel(), np.stack(frames[-stack:]).ravel())
        action = actions.integers(env.action_space.n)
        before, (observation, reward, terminated, truncated, _) = observation, env.step(action)
        np.testing.assert_array_equal(before, kept)  # observations are the receiver's own
        lanes.send(np.array([action]))
        step = lanes.recv()
        assert reward == step.reward[0]
        assert terminated == (step.discount[0] == 0)
        frames.append(step.observation[0])
        if terminated or truncated:
            lanes.send(np.array([0]))
            step = lanes.recv()
            assert step.first[0]
            observation, _ = env.reset()
            frames = [*start, step.observation[0]]
        else:
            assert not lanes.over[0]


def end_of_an_episode(**settings: int) -> tuple[int, bool, bool]:
    """Steps of an episode without action, and whether it terminated and was truncated."""
    env = GameEnv("minatar", "breakout", **settings)
    env.reset(seed=1)
    steps = (env.step(np.int64(0))[2:4] for _ in range(10_000))
    return next((count, *ends) for count, ends in enumerate(steps, start=1) if any(ends))


def test_a_limit_truncates_and_a_lost_game_terminates() -> None:
    assert end_of_an_episode(max_episode_frames=5) == (5, False, True)
    assert end_of_an_episode()[1:] == (True, False)


def test_after_a_lost_life_the_game_continues_with_its_stack() -> None:
    env = GameEnv("atari", "breakout", stack=4, life_loss_terminates=True)
    observation, _ = env.reset(seed=1)
    lives = 0
    for _ in range(4000):
        before = observation
        observation, _, terminated, _, _ = env.step(np.int64(1))  # FIRE, and never move
        if terminated:
            lives += 1
            after, _ = env.reset()
            if lives < 5:
                np.testing.assert_array_equal(after, observation)
                np.testing.assert_array_equal(after[:3], before[1:])
            else:
                np.testing.assert_array_equal(after[:3], 0)
                break
            observation = after
    assert lives == 5


def rollout(env: GameEnv, seed: int | None) -> list[Any]:
    seen = [env.reset(seed=seed)[0]]
    for action in range(30):
        observation, reward, terminated, truncated, _ = env.step(np.int64(action % env.action_space.n))
        seen += [observation, reward]
        if terminated or truncated:
            seen.append(env.reset()[0])
    seen.append(env.reset()[0])  # in the middle of a game
    return seen


def test_the_seed_decides_everything_after_it() -> None:
    env = GameEnv("minatar", "asterix")
    first, other, again = rollout(env, 3), rollout(env, 4), rollout(env, 3)
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert not all(np.array_equal(left, right) for left, right in zip(first, other, strict=False))


def test_what_a_reset_replaces_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Lanes] = []
    monkeypatch.setattr(Lanes, "close", lambda lanes: closed.append(lanes))
    env = GameEnv("minatar", "breakout")
    for seed in (1, None):  # the second in the middle of a game
        env.reset(seed=seed)
    env.close()
    assert len({id(lanes) for lanes in closed}) == 3


@pytest.mark.parametrize(
    ("suite", "game", "settings", "message"),
    [
        ("minatar", "brekout", {}, "breakout"),
        ("minatar", "breakout", {"stack": 0}, "stack must be at least 1"),
        ("minatar", "breakout", {"resize": "bilinear"}, "no effect"),
        ("minatar", "breakout", {"render_mode": "ansi"}, "must be rgb_array or None, got 'ansi'"),
    ],
)
def test_invalid_settings_are_refused(suite: str, game: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GameEnv(suite, game, **settings)
