"""Stable-Baselines3's DQN on Atari with weight-normalized layers: python examples/sb3_atari.py [STEPS]."""

import sys

import ale_py
import gymnasium
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

from wn_rl.sb3 import DataDependentInit, WeightNormCnnPolicy

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000

gymnasium.register_envs(ale_py)
env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", seed=1), n_stack=4)
model = DQN(
    WeightNormCnnPolicy,
    env,
    learning_rate=3e-4,  # the paper's for weight_norm; SB3's default is 1e-4
    buffer_size=50_000,  # SB3 keeps every stack twice: 2.8 GB
    learning_starts=STEPS // 20,
    verbose=1,
)
model.learn(STEPS, callback=DataDependentInit())
model.save("breakout_weight_norm")
