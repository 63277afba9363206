"""What is measured in a process of its own: a training loop of ours, and one of Stable-Baselines3.

    python -m wn_rl.bench.workers NAME JSON

prints one JSON object. Both loops do the same work, and say what they did so that the caller can check it.
"""

import contextlib
import functools
import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch

from wn_rl.bench.clock import TimeIsUp, Turns
from wn_rl.bench.cuda_workers import compile_round, prefilled, updates_together
from wn_rl.bench.measure import seconds_in_turns
from wn_rl.config import Config, from_json
from wn_rl.machine import keep_freed_memory

WARM_UP_STEPS = 400  # after replay start, before the clock


def ours(config: dict[str, Any]) -> dict[str, Any]:
    """Our loop as `wn-rl train` runs it, without its folder; by turns, as all loops."""
    from wn_rl.agents.dqn import DQN as Experiment
    from wn_rl.run.training import use_threads

    settings = use_threads(from_json(config))
    experiment = Experiment(settings, torch.device(settings.device))
    clock = _clock(settings)

    def after_step(experiment: Any) -> None:
        if not clock(experiment.num_steps, experiment.learner.num_updates):
            raise TimeIsUp

    with contextlib.suppress(TimeIsUp):
        experiment.run(after_step)
    network = experiment.learner.online
    return _work(settings, sum(p.numel() for p in network.parameters()))


def _clock(settings: Config) -> Turns:
    steps_of_round = max(settings.learning.update_period, settings.num_envs)
    return Turns(settings.learning.replay_start + WARM_UP_STEPS, steps_of_round)


def stable_baselines3(config: dict[str, Any]) -> dict[str, Any]:
    """SB3's DQN with the same game, network, batch, ratio of updates, optimizer, replay and threads."""
    settings = from_json(config)
    if settings.parameterization != "normal":
        raise ValueError("SB3's own layers are normal")
    return _train_sb3(settings, "CnnPolicy", _sb3_policy(settings))


def sb3_with_our_layers(config: dict[str, Any]) -> dict[str, Any]:
    """The same with our policy for SB3, in the config's parameterization."""
    from wn_rl.sb3 import WeightNormCnnPolicy

    settings = from_json(config)
    policy = {
        "parameterization": settings.parameterization,
        "features_extractor_kwargs": {"network": settings.network.name},
        "normalize_images": settings.suite == "atari",
    }
    return _train_sb3(settings, WeightNormCnnPolicy, policy)


def _train_sb3(settings: Config, policy: Any, policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    from wn_rl.agents.accelerate import set_tf32

    torch.set_num_threads(settings.torch_threads or torch.get_num_threads())
    set_tf32(
        settings.learning.precision == "tf32", torch.device(settings.device)
    )  # as ours: by torch's default convolutions would be tf32
    learning, lanes = settings.learning, settings.num_envs
    model = DQN(
        policy,
        _sb3_environments(settings),
        learning_rate=settings.learning_rate,
        buffer_size=learning.replay_capacity,
        learning_starts=learning.replay_start,
        batch_size=learning.batch_size,
        gamma=learning.discount,
        train_freq=(max(1, learning.update_period // lanes), "step"),
        gradient_steps=max(1, lanes // learning.update_period),
        target_update_interval=learning.target_period,
        exploration_initial_eps=learning.epsilon_end,
        exploration_final_eps=learning.epsilon_end,
        policy_kwargs=policy_kwargs,
        device=settings.device,
        seed=settings.seed,
    )
    clock = _clock(settings)

    class Clock(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            return clock(self.num_timesteps, model._n_updates)

    model.learn(10**9, callback=Clock())
    network = model.q_net
    return _work(settings, sum(p.numel() for p in network.parameters()))


def _sb3_environments(settings: Config) -> Any:
    """Atari as SB3's own users make it; other suites through our Gymnasium environment."""
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    if settings.suite == "atari":
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
        name = "".join(word.capitalize() for word in settings.game.split("_"))
        lanes = make_atari_env(f"{name}NoFrameskip-v4", n_envs=settings.num_envs, seed=settings.seed)
        return VecFrameStack(lanes, n_stack=settings.network.stack)
    from wn_rl.envs.as_gymnasium import GameEnv

    return make_vec_env(lambda: GameEnv(settings.suite, settings.game), settings.num_envs, seed=settings.seed)


def _sb3_policy(settings: Config) -> dict[str, Any]:
    """nature_cnn is SB3's own; minatar_cnn is written out in plain torch."""
    policy: dict[str, Any] = {
        "net_arch": [],
        "optimizer_class": torch.optim.Adamax,
        "optimizer_kwargs": {"betas": (0.5, 0.999)},
    }
    if settings.network.name == "minatar_cnn":
        policy |= {"features_extractor_class": _minatar_features(), "normalize_images": False}
    return policy


def _minatar_features() -> Any:
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import Tensor, nn

    class MinatarFeatures(BaseFeaturesExtractor):  # type: ignore[misc]
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, features_dim=128)
            channels = observation_space.shape[0]
            self.layers = nn.Sequential(
                nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8 * 8, 128), nn.ReLU()
            )

        def forward(self, observations: Tensor) -> Tensor:
            features: Tensor = self.layers(observations)
            return features

    return MinatarFeatures


def _work(settings: Config, num_parameters: int) -> dict[str, Any]:
    """What the caller holds equal between loops."""
    return {
        "num_parameters": num_parameters,
        "torch_threads": torch.get_num_threads(),
        "lanes": settings.num_envs,
        "steps_per_update": settings.learning.update_period,
    }


def rounds_in_turns(configs: dict[str, dict[str, Any]], turns: int, calls: int) -> dict[str, list[float]]:
    """Seconds of a round of updates of each config, by its name, on one replay; so many rounds at a turn."""
    from wn_rl.bench.setups import filled_replay, round_function

    keep_freed_memory()  # as a run does
    settings = {name: from_json(config) for name, config in configs.items()}
    first = next(iter(settings.values()))
    torch.set_num_threads(first.torch_threads or torch.get_num_threads())
    device = torch.device(first.device)
    replay = filled_replay(first, device, num_rows=500)
    num_updates = first.num_envs // first.learning.update_period
    rounds = {
        name: functools.partial(round_function(config, replay, device), num_updates)
        for name, config in settings.items()
    }
    return seconds_in_turns(rounds, turns, calls, device)


def emulator(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Random play without a network: agent steps a second, of all rows and of those in which no game begins.

    Lanes go in lockstep, so all wait where one begins a game, which takes as long as twenty steps.
    """
    from wn_rl.agents.experiment import make_training_environments

    settings = from_json(config)
    environments = make_training_environments(settings)
    environments.reset()
    generator = np.random.default_rng(0)
    actions = generator.integers(0, environments.spec.num_actions, (1000, settings.num_envs))
    for row in range(50):  # warm-up
        environments.send(actions[row])
        environments.recv()
    seconds_of = {"any": 0.0, "no_start": 0.0}
    rows_of = {"any": 0, "no_start": 0}
    while seconds_of["any"] < seconds:
        start = time.perf_counter()
        environments.send(actions[rows_of["any"] % 1000])
        step = environments.recv()
        took = time.perf_counter() - start
        for kind in ("any",) if step.first.any() else ("any", "no_start"):
            seconds_of[kind] += took
            rows_of[kind] += 1
    environments.close()
    return {
        "steps_per_second": settings.num_envs * rows_of["any"] / seconds_of["any"],
        "steps_per_second_without_start": settings.num_envs * rows_of["no_start"] / (seconds_of["no_start"] or 1),
    }


def replay_memory(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Resident memory that a full replay of ours takes, every byte written."""
    from wn_rl.agents.replay import Replay
    from wn_rl.envs.base import EnvironmentSpec, Step

    settings = from_json(config)
    spec = EnvironmentSpec(4, (84, 84), "uint8", 1 / 255, 4, ("",) * 4)
    before = _resident_bytes()
    replay = Replay(settings.learning.replay_capacity, 1000, spec, stack=4)
    frames = np.random.default_rng(0).integers(0, 256, (1000, 84, 84), dtype=np.uint8)
    ones = np.ones(1000, dtype=np.float32)
    for _ in range(replay.ring_rows):
        replay.add(Step(frames, ones, ones, ones > 1), np.zeros(1000, dtype=np.int64))
    return {"bytes": _resident_bytes() - before, "steps": replay.ring_rows * 1000}


def sb3_replay_memory(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The same for SB3's buffer of stacked frames, in its memory-saving form, which keeps one stack a step."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    settings = from_json(config)
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    before = _resident_bytes()
    capacity = settings.learning.replay_capacity
    buffer = ReplayBuffer(
        capacity, space, spaces.Discrete(4), optimize_memory_usage=True, handle_timeout_termination=False
    )
    stack = np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), dtype=np.uint8)
    for _ in range(capacity):
        buffer.add(stack, stack, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    return {"bytes": _resident_bytes() - before, "steps": capacity}


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


WORKERS = {
    "ours": ours,
    "stable_baselines3": stable_baselines3,
    "sb3_with_our_layers": sb3_with_our_layers,
    "rounds_in_turns": rounds_in_turns,
    "emulator": emulator,
    "compile_round": compile_round,
    "prefilled": prefilled,
    "updates_together": updates_together,
    "replay_memory": replay_memory,
    "sb3_replay_memory": sb3_replay_memory,
}

if __name__ == "__main__":
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    worker: Any = WORKERS[name]
    print(json.dumps(worker(**settings)))
