"""Short real learning: a DQN of any parameterization on MinAtar beats the random policy by far."""

import dataclasses

import pytest
import torch

from wn_rl.agents.dqn import DQN
from wn_rl.agents.evaluation import run_nature_evaluation
from wn_rl.agents.experiment import make_dqn
from wn_rl.config import Config, LearningConfig
from wn_rl.presets import minatar
from wn_rl.registry import PARAMETERIZATIONS

QUICK = LearningConfig(replay_capacity=20_000, replay_start=1_000, epsilon_steps=10_000, target_period=1_000)


def trained(config: Config) -> DQN:
    experiment = make_dqn(config, torch.device("cpu"))
    experiment.run(config.steps, lambda experiment: None)
    return experiment


OTHERS = [
    pytest.param(name, 60_000, marks=pytest.mark.slow) for name in PARAMETERIZATIONS if name != "weight_norm"
]


@pytest.mark.parametrize(("parameterization", "steps"), [("weight_norm", 40_000), *OTHERS])
def test_dqn_learns_minatar_breakout(parameterization: str, steps: int) -> None:
    base = dataclasses.replace(minatar("breakout"), parameterization=parameterization)
    config = dataclasses.replace(base, steps=steps, num_envs=32, learning=QUICK)
    experiment = trained(config)
    network, tests = experiment.learner.networks.acting, dataclasses.replace(config.evaluation, num_envs=8)
    learned, random = (
        run_nature_evaluation(
            dataclasses.replace(config, evaluation=dataclasses.replace(tests, epsilon=epsilon)),
            network,
            seed=1,
            num_episodes=100,
        )
        for epsilon in (0.05, 1.0)
    )
    assert random.return_mean is not None
    assert random.return_mean < 1
    assert learned.return_mean is not None
    assert learned.return_mean > random.return_mean + 2
