"""Export a network that Stable-Baselines3 trained, and load it again: python examples/export_sb3.py [STEPS]."""

import sys
from pathlib import Path

import torch
from stable_baselines3 import DQN
from torch import nn

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.export import Agent, export, load_exported
from wn_rl.nn import fold
from wn_rl.sb3 import DataDependentInit, WeightNormCnnPolicy, network_from_model

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000

env = GameEnv("minatar", "breakout")
policy = {"features_extractor_kwargs": {"network": "minatar_cnn"}}
model = DQN(WeightNormCnnPolicy, env, learning_rate=3e-4, policy_kwargs=policy, buffer_size=100_000)
model.learn(STEPS, callback=DataDependentInit())

network = fold(network_from_model(model))
assert isinstance(network, nn.Sequential)
actions = ("NOOP", "LEFT", "RIGHT")
agent = Agent(network, "minatar_cnn", "uint8", actions, f"SB3's DQN after {STEPS:,} steps", run={})
export(agent, Path("breakout_agent"), onnx=False)

observation, _ = env.reset(seed=1)
print(load_exported("breakout_agent").network(torch.from_numpy(observation)[None, None]))
