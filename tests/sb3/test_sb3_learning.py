"""SB3's DQN with our layers learns MinAtar, and learns, saves and loads on Atari; the examples run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.sb3 import DataDependentInit, WeightNormCnnPolicy, network_from_model

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("sb3*.py"))


def minatar(num_envs: int, seed: int) -> VecEnv:
    return make_vec_env(lambda: GameEnv("minatar", "breakout", max_episode_frames=10_000), num_envs, seed=seed)


def random_policy_return(num_games: int) -> float:
    """Mean return of games of random actions."""
    env, actions = GameEnv("minatar", "breakout", max_episode_frames=10_000), np.random.default_rng(1)
    env.reset(seed=1)
    total, games = 0.0, 0
    while games < num_games:
        _, reward, terminated, truncated, _ = env.step(actions.integers(env.action_space.n))
        total += reward
        if terminated or truncated:
            games += 1
            env.reset()
    return total / games


@pytest.mark.slow
@pytest.mark.parametrize(("parameterization", "learning_rate"), [("weight_norm", 3e-4), ("normal", 1e-4)])
def test_it_learns_minatar_breakout(parameterization: str, learning_rate: float) -> None:
    learning: dict[str, Any] = {"learning_rate": learning_rate, "learning_starts": 1_000, "buffer_size": 20_000}
    learning |= {"batch_size": 64, "train_freq": 1, "target_update_interval": 1_000, "exploration_fraction": 0.4}
    policy = {"parameterization": parameterization, "features_extractor_kwargs": {"network": "minatar_cnn"}}
    env = minatar(4, seed=1)
    model = DQN(WeightNormCnnPolicy, env, policy_kwargs=policy, seed=1, device="cpu", **learning)
    model.learn(25_000, callback=DataDependentInit())
    returns, _ = evaluate_policy(model, minatar(8, seed=2), n_eval_episodes=50, return_episode_rewards=True)
    assert np.mean(returns) > random_policy_return(100) + 1


@pytest.mark.parametrize("parameterization", ["weight_norm", "normal"])
def test_on_atari_as_sb3_wraps_it(parameterization: str, tmp_path: Path) -> None:
    gymnasium.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=2, seed=1), n_stack=4)
    policy = {"parameterization": parameterization}
    settings: dict[str, Any] = {"buffer_size": 1000, "learning_starts": 100, "seed": 1, "device": "cpu"}
    model = DQN(WeightNormCnnPolicy, env, policy_kwargs=policy, **settings)
    model.learn(300, callback=DataDependentInit(64))
    assert model._n_updates > 0
    model.save(tmp_path / "model")
    loaded = DQN.load(tmp_path / "model", env=env, device="cpu")
    states = model.replay_buffer.sample(8).observations
    with torch.no_grad():
        torch.testing.assert_close(model.q_net.eval()(states), loaded.q_net.eval()(states))
    loaded.learn(150, callback=DataDependentInit(64))
    evaluate_policy(loaded, env, n_eval_episodes=1, warn=False)


@pytest.mark.parametrize("axis", ["first", "last"])
def test_frames_of_minatar_that_sb3_stacks_are_read_along_their_channels(axis: str) -> None:
    def make_env() -> gymnasium.Env[Any, Any]:
        env, box = GameEnv("minatar", "breakout"), spaces.Box(0, 1, (10, 10, 4), np.uint8)
        if axis == "first":
            return env
        return gymnasium.wrappers.TransformObservation(env, lambda frame: frame.transpose(1, 2, 0), box)

    env = VecFrameStack(make_vec_env(make_env, 2, seed=1), 3, channels_order=axis)
    policy = {"features_extractor_kwargs": {"network": "minatar_cnn"}}
    settings: dict[str, Any] = {"buffer_size": 500, "learning_starts": 99, "seed": 1, "device": "cpu"}
    model = DQN(WeightNormCnnPolicy, env, policy_kwargs=policy, **settings)
    model.learn(200, callback=DataDependentInit(64))
    model.policy.set_training_mode(False)
    states = model.replay_buffer.sample(8).observations
    frames = states if axis == "first" else states.permute(0, 3, 1, 2)
    with torch.no_grad():
        ours = network_from_model(model, stack=3)(frames.reshape(8, 3, 4, 10, 10))
        torch.testing.assert_close(model.q_net(states), ours)


@pytest.mark.slow
def test_rl_zoo3_trains_and_shows_a_registered_game(tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    (tmp_path / "dqn.yml").write_text("""
wn_rl/MinAtar-Breakout-v0:
  n_timesteps: 400
  policy: wn_rl.sb3.WeightNormCnnPolicy
  policy_kwargs: "dict(features_extractor_kwargs=dict(network='minatar_cnn'))"
  learning_starts: 100
  buffer_size: 1000
""")
    shared = ["--algo", "dqn", "--env", "wn_rl/MinAtar-Breakout-v0", "--gym-packages", "wn_rl", "-f", "logs"]
    for words in (["train", "-conf", "dqn.yml", "--device", "cpu"], ["enjoy", "-n", "300", "--no-render"]):
        command = [sys.executable, "-m", f"rl_zoo3.{words[0]}", *shared, *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
    assert "Episode Reward" in done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(example), "300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.zip"))
