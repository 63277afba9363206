"""What runs in processes of its own: training loops of ours and of Stable-Baselines3, and parts of ours alone."""

import contextlib
import resource
import time
from collections.abc import Callable, Hashable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack
from torch import Tensor, nn

from bench.measure import seconds_of
from wn_rl.agents.accelerate import set_tf32
from wn_rl.agents.experiment import make_dqn, make_training_environments
from wn_rl.agents.replay import Replay
from wn_rl.config import Config
from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.nn import fold
from wn_rl.run.training import set_torch_threads

WARM_UP_STEPS = 400  # after replay start, before the first turn
BLOCK_STEPS = 64  # between two looks at the clock; whole rounds


def take_turns(connection: Connection, turn: Callable[[float], object]) -> None:
    """Say that this process is ready; for each number of seconds received, make a turn and send its result."""
    connection.send("ready")
    while True:
        connection.send(turn(connection.recv()))


def loop_in_turns(
    connection: Connection,
    config: Config,
    network: nn.Module,
    run_to: Callable[[int], object],
    counts: Callable[[], tuple[int, int]],
) -> None:
    """Turns of a training loop that runs to a number of steps. counts: its steps and updates so far.

    Besides what was counted in a turn it sends what must be equal between loops; of the network, the parameters of
    plain layers that compute the same.
    """
    num_parameters = sum(parameter.numel() for parameter in fold(network).parameters())
    run_to(config.learning.replay_start + WARM_UP_STEPS)

    def turn(allowed: float) -> dict[str, float]:
        start, (first_step, first_update) = time.perf_counter(), counts()
        while (seconds := time.perf_counter() - start) < allowed:
            run_to(counts()[0] + BLOCK_STEPS)
        steps, updates = counts()
        return {
            "seconds": seconds,
            "steps": steps - first_step,
            "updates": updates - first_update,
            "num_parameters": num_parameters,
            "torch_threads": torch.get_num_threads(),
            "lanes": config.num_envs,
            "steps_per_update": config.learning.update_period,
        }

    take_turns(connection, turn)


def ours(connection: Connection, config: Config) -> None:
    """Our loop as `wn-rl train` runs it, without its folder."""
    dqn = make_dqn(set_torch_threads(config), torch.device(config.device))

    def run_to(num_steps: int) -> None:
        dqn.run(num_steps, lambda _: None)

    network = dqn.learner.networks.online
    loop_in_turns(connection, config, network, run_to, lambda: (dqn.num_steps, dqn.learner.num_updates))


def stable_baselines3(connection: Connection, config: Config) -> None:
    """SB3's DQN, with its own layers, at the same work."""
    config = set_torch_threads(config)
    learning, lanes = config.learning, config.num_envs
    set_tf32(False, torch.device(config.device))  # as ours: by torch's default convolutions would be tf32
    on_pixels = config.suite == "atari"
    features = {} if on_pixels else {"features_extractor_class": MinatarFeatures, "normalize_images": False}
    optimizer = {"optimizer_class": torch.optim.Adamax, "optimizer_kwargs": {"betas": (0.5, 0.999)}}
    model = DQN(
        "CnnPolicy",
        _sb3_environments(config),
        learning_rate=config.learning_rate,
        buffer_size=learning.replay_capacity,
        learning_starts=learning.replay_start,
        batch_size=learning.batch_size,
        gamma=learning.discount,
        train_freq=(max(1, learning.update_period // lanes), "step"),
        gradient_steps=updates_in_a_round(config),
        target_update_interval=learning.target_period,
        exploration_initial_eps=learning.epsilon_end,
        exploration_final_eps=learning.epsilon_end,
        policy_kwargs={"net_arch": [], **optimizer, **features},
        device=config.device,
        seed=config.seed,
    )
    model.set_logger(Logger(None, []))  # or each call of learn would make one

    def run_to(num_steps: int) -> None:
        model.learn(num_steps - model.num_timesteps, reset_num_timesteps=False)

    loop_in_turns(connection, config, model.q_net, run_to, lambda: (model.num_timesteps, model._n_updates))


def _sb3_environments(config: Config) -> Any:
    """Atari as SB3's own users make it; MinAtar through our Gymnasium environment."""
    if config.suite != "atari":
        return make_vec_env(lambda: GameEnv(config.suite, config.game), config.num_envs, seed=config.seed)
    gymnasium.register_envs(ale_py)
    name = config.game.replace("_", " ").title().replace(" ", "")
    lanes = make_atari_env(f"{name}NoFrameskip-v4", n_envs=config.num_envs, seed=config.seed)
    return VecFrameStack(lanes, n_stack=config.network.stack)


def updates_in_a_round(config: Config) -> int:
    """Updates that fall due together."""
    return max(1, config.num_envs // config.learning.update_period)


class MinatarFeatures(BaseFeaturesExtractor):  # type: ignore[misc]
    """minatar_cnn in plain torch, without its last layer; of nature_cnn SB3 has its own."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, features_dim=128)
        convolution, dense = nn.Conv2d(observation_space.shape[0], 16, 3), nn.Linear(16 * 8 * 8, 128)
        self.layers = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), dense, nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)  # type: ignore[no-any-return]


def updates(connection: Connection, configs: Mapping[Hashable, Config], rounds: int) -> None:
    """Mean seconds of an update of each config over this number of rounds, whatever the seconds of a turn.

    No environments step. Configs take turns too; every second turn is in reverse order, since a config depends on
    what the one before it left in the caches.
    """
    learners = {}
    for name, config in configs.items():
        dqn = make_dqn(set_torch_threads(config), torch.device(config.device))
        dqn.run(config.learning.replay_start, lambda _: None)
        dqn.environments.close()
        dqn.learn()  # this initializes the networks
        learners[name] = dqn.learner

    def seconds_of_update(name: Hashable, calls: int) -> float:
        num_updates = updates_in_a_round(configs[name])
        return seconds_of(lambda: learners[name].learn(num_updates), calls) / num_updates

    order = list(configs)
    for name in order:
        seconds_of_update(name, 5)  # warm-up: libraries, compilers, captures

    def turn(_: float) -> dict[Hashable, float]:
        found = {name: seconds_of_update(name, rounds) for name in order}
        order.reverse()
        return found

    take_turns(connection, turn)


def emulator(connection: Connection, config: Config) -> None:
    """Frames per second of random play without a network."""
    environments = make_training_environments(config)
    spec, frames = environments.spec, config.num_envs * environments.spec.frames_per_step
    actions = np.random.default_rng(0).integers(0, spec.num_actions, (1000, config.num_envs))
    environments.reset()

    def play(allowed: float) -> float:
        start, rows = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < allowed:
            environments.send(actions[rows % 1000])
            environments.recv()
            rows += 1
        return frames * rows / seconds

    with contextlib.closing(environments):
        play(0.1)  # warm-up
        take_turns(connection, play)


def replay_bytes(connection: Connection, make_replay: Callable[[int], object], capacity: int) -> None:
    """Resident memory that a full replay takes, every byte written."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def grow(_: float) -> dict[str, int]:
        before = resident()
        _replay = make_replay(capacity)  # kept until its memory is read
        return {"bytes": resident() - before}

    take_turns(connection, grow)


def full_replay(capacity: int) -> Replay:
    """Our replay of Atari."""
    spec = EnvironmentSpec(4, (84, 84), "uint8", 1 / 255, 4, ("",) * 4)
    replay = Replay(capacity, 1000, spec, stack=4)
    frames = np.random.default_rng(0).integers(0, 256, (1000, 84, 84), dtype=np.uint8)
    ones = np.ones(1000, dtype=np.float32)
    for _ in range(replay.ring_rows):
        replay.add(Step(frames, ones, ones, ones > 1), np.zeros(1000, dtype=np.int64))
    return replay


def full_sb3_replay(capacity: int) -> ReplayBuffer:
    """SB3's buffer of stacked frames, in its memory-saving form, which keeps one stack a step."""
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    saving = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    buffer = ReplayBuffer(capacity, space, spaces.Discrete(4), **saving)
    stack = np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), dtype=np.uint8)
    for _ in range(capacity):
        buffer.add(stack, stack, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    return buffer
