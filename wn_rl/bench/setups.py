"""What sections share: the options, configs to measure, filled replays, and rounds of updates on them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wn_rl.agents.dqn import Learner
from wn_rl.agents.dqn import Learner as Rounds
from wn_rl.agents.experiment import make_training_environments
from wn_rl.agents.replay import Draws, Replay
from wn_rl.config import Config, OptimizerConfig
from wn_rl.registry import PRESETS

FOREVER = 10**9  # steps
UNSPLIT = 64_000  # steps between copies of the target: rounds of sixteen updates are never split


@dataclass(frozen=True)
class Options:
    """How long and where to measure. threads: of torch, in every process. games: of sections that have several."""

    device: str
    threads: int
    repetitions: int
    seconds: float
    games: tuple[str, ...]

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)


def config_of(preset: str, game: str, options: Options, **changes: Any) -> Config:
    """A preset's game for measuring: one learning rate, constant exploration, no end."""
    config: Config = PRESETS[preset](game)
    learning = {"epsilon_start": 0.1, "epsilon_end": 0.1, **changes.pop("learning", {})}
    return dataclasses.replace(
        config,
        steps=FOREVER,
        device=options.device,
        torch_threads=config.torch_threads or options.threads,  # small networks are faster with one
        optimizer=OptimizerConfig(learning_rate=1e-4),
        learning=dataclasses.replace(config.learning, **learning),
        **changes,
    )


def filled_replay(config: Config, device: torch.device, num_rows: int) -> Replay:
    """A replay of random play of the config's game."""
    environments = make_training_environments(config)
    spec = environments.spec
    replay = Replay(num_rows * config.num_envs, config.num_envs, spec, stack=config.network.stack, device=device)
    generator = np.random.default_rng(0)
    step = environments.reset()
    for _ in range(num_rows):
        actions = generator.integers(0, spec.num_actions, config.num_envs)
        replay.add(step, actions)
        environments.send(actions)
        step = environments.recv()
    environments.close()
    return replay


def round_function(config: Config, replay: Replay, device: torch.device) -> Callable[[int], None]:
    """A learner's rounds on this replay: what makes so many updates."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are those of the current device
    environments = make_training_environments(dataclasses.replace(config, num_envs=1))
    learner = Learner(config, environments.spec, device)
    environments.close()
    draws = Draws(0, "initialize", config.network.init_states, replay.device)
    draws.seek(0)
    learner.initialize(replay.sample(draws.take(1)).s_tm1.to(device))
    return Rounds(config, learner, replay).learn
