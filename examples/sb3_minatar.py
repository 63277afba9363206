"""Stable-Baselines3's DQN with weight-normalized layers on MinAtar: python examples/sb3_minatar.py [STEPS]."""

import sys

from stable_baselines3 import DQN

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.sb3 import DataDependentInit, WeightNormCnnPolicy

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000

env = GameEnv("minatar", "breakout")
network = {"features_extractor_kwargs": {"network": "minatar_cnn"}}
model = DQN(WeightNormCnnPolicy, env, learning_rate=3e-4, policy_kwargs=network, buffer_size=100_000, verbose=1)
model.learn(STEPS, callback=DataDependentInit())
model.save("breakout_weight_norm")
