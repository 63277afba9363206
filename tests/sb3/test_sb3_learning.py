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
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.sb3 import DataDependentInit, WeightNormCnnPolicy

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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(example), "300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.zip"))
