"""The whole algorithm: `Experiment.run` is Deep Q-learning with replay (Mnih et al. 2015, algorithm 1)."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wn_rl import envs
from wn_rl.agents.actor import Actor
from wn_rl.agents.evaluation import EpisodeReturns
from wn_rl.agents.learner import Learner, Rounds
from wn_rl.agents.replay import Draws, Replay
from wn_rl.config import Config, LearningConfig
from wn_rl.envs.base import Environments, Step
from wn_rl.machine import keep_freed_memory, require_compiler, require_memory
from wn_rl.seeding import derive_seed

RETURN_WINDOW = 100  # games in train/return_last_100


def epsilon_at(num_steps: int, learning: LearningConfig) -> float:
    """Exploration after num_steps: its start until replay start, then linear to its end, then constant."""
    fraction = min(max((num_steps - learning.replay_start) / learning.epsilon_steps, 0.0), 1.0)
    return learning.epsilon_start + fraction * (learning.epsilon_end - learning.epsilon_start)


def updates_due(num_steps: int, learning: LearningConfig) -> int:
    """Updates that belong to num_steps: one for each whole update period since replay start, for any lanes."""
    return max(0, num_steps - learning.replay_start) // learning.update_period


def make_training_environments(config: Config) -> Environments:
    """The lanes that a run learns from."""
    return envs.make(
        config.suite,
        config.game,
        num_envs=config.num_envs,
        seed=derive_seed(config.seed, "environments"),
        life_loss_terminates=config.environment.life_loss_terminates,
        max_episode_frames=config.environment.max_episode_frames,
        resize=config.environment.resize,
        num_threads=config.environment.emulator_threads,
        processes=config.environment.processes,
    )


def require_device(config: Config, device: torch.device) -> None:
    """ValueError where an option needs CUDA and the device is none, UserError where it lacks a compiler."""
    options = {
        "--accelerate": (config.accelerate, "cuda_graph"),
        "--learning.precision": (config.learning.precision, "tf32"),
    }
    for flag, (value, needs_cuda) in options.items():
        if value == needs_cuda and device.type != "cuda":
            raise ValueError(f"{flag} {value} needs a CUDA device, not {device}")
    if config.accelerate != "eager":
        require_compiler(f"--accelerate {config.accelerate}", device.type)


class Experiment:
    """A run's parts and counts, and nothing of its folder: `agents.training` logs, tests and saves it."""

    def __init__(self, config: Config, device: torch.device) -> None:
        require_device(config, device)
        keep_freed_memory()
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            torch.cuda.set_device(device)  # streams and graphs are those of the current device
        self.config = config
        self.environments = make_training_environments(config)
        spec = self.environments.spec
        num_bytes = Replay.num_bytes(config.learning.replay_capacity, spec)
        self.learner = Learner(config, spec, device)
        self.replay = Replay(
            config.learning.replay_capacity,
            config.num_envs,
            spec,
            stack=config.network.stack,
            device=replay_device(device, num_bytes),
        )
        self.rounds = Rounds(config, self.learner, self.replay)
        self.actor = Actor(
            self.learner.acting,
            config.num_envs,
            spec,
            stack=config.network.stack,
            seed=derive_seed(config.seed, "actor"),
            accelerate=config.accelerate,
        )
        self.episodes = EpisodeReturns(config.num_envs)
        self.recent_returns: deque[float] = deque(maxlen=RETURN_WINDOW)
        self.new_episodes: list[tuple[float, int]] = []  # return and length of those not yet logged
        self.step: Step | None = None
        self.num_steps = 0
        self.initialized = False
        self.held_out_states: Tensor | None = None

    def run(self, after_step: Callable[["Experiment"], None]) -> None:
        """Train to config.steps. after_step is called before the first step and after each; it may raise."""
        if self.step is None:
            self.step = self.environments.reset()
        after_step(self)
        while self.num_steps < self.config.steps:
            actions = self.actor.act(self.step, self.epsilon)
            self.replay.add(self.step, actions)
            self.environments.send(actions)  # Atari's emulators run on while the learner works:
            self.learn()  # the replay does not hold the step in flight
            self.step = self.environments.recv()
            self.num_steps += self.config.num_envs
            for _, game_return, length in self.episodes.add(self.step):
                self.recent_returns.append(game_return)
                self.new_episodes.append((game_return, length))
            after_step(self)

    def learn(self) -> None:
        """Make the updates that are due, on what the replay holds."""
        learning = self.config.learning
        if self.num_steps < learning.replay_start:
            return
        if not self.initialized:
            self.initialize()
        num_due = updates_due(self.num_steps, learning) - self.learner.num_updates
        if num_due:
            self.rounds.learn(num_due)

    def initialize(self) -> None:
        """At replay start, once in a run: the data-dependent initialization, and the held-out states."""
        self.learner.initialize(self._states("initialize", self.config.network.init_states))
        self.held_out_states = self._states("held_out", self.config.evaluation.held_out_states)
        self.initialized = True

    def _states(self, purpose: str, count: int) -> Tensor:
        """States [count, K, *O] from the replay, on the learner's device."""
        self.replay.require_transitions()
        draws = Draws(derive_seed(self.config.seed, "replay"), purpose, count, self.replay.device)
        draws.seek(0)
        return self.replay.sample(draws.take(1)).s_tm1.to(self.learner.device).contiguous()

    @property
    def epsilon(self) -> float:
        """The exploration of the next step."""
        return epsilon_at(self.num_steps, self.config.learning)

    @property
    def num_frames(self) -> int:
        """Emulator frames so far."""
        return self.num_steps * self.environments.spec.frames_per_step

    def metrics(self) -> dict[str, float | int | None]:
        """One row: what happened since the last call. Returns are raw.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        returns, lengths = zip(*self.new_episodes, strict=True) if self.new_episodes else ((), ())
        self.new_episodes = []
        return {
            "step": self.num_steps,
            "frames": self.num_frames,
            "updates": self.learner.num_updates,
            "train/return": float(np.mean(returns)) if returns else None,
            "train/return_last_100": float(np.mean(self.recent_returns)) if self.recent_returns else None,
            "train/length": float(np.mean(lengths)) if lengths else None,
            "train/episodes": len(returns),
            "epsilon": self.epsilon,
            **self.learner.metrics(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future but the replay's rows, which are saved apart."""
        assert self.step is not None
        return {
            "num_steps": self.num_steps,
            "initialized": self.initialized,
            "held_out_states": self.held_out_states,
            "step": self.step._asdict(),
            "environments": self.environments.state_dict(),
            "learner": self.learner.state_dict(),
            "actor": self.actor.state_dict(),
            "episodes": self.episodes.state_dict(),
            "recent_returns": list(self.recent_returns),
            "new_episodes": [list(episode) for episode in self.new_episodes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        """Go on from a state that `state_dict` gave; the replay's rows must have been put back.

        Returns the lanes whose game is lost: they begin the next one, and the lost one counts nowhere.
        """
        self.num_steps = state["num_steps"]
        self.initialized = state["initialized"]
        held_out = state["held_out_states"]
        self.held_out_states = None if held_out is None else held_out.to(self.learner.device)
        self.step = Step(**state["step"])
        lost = self.environments.load_state_dict(state["environments"])
        self.learner.load_state_dict(state["learner"])
        self.actor.load_state_dict(state["actor"])
        self.episodes.load_state_dict(state["episodes"])
        self.episodes.forget(lost)
        self.recent_returns = deque(state["recent_returns"], maxlen=RETURN_WINDOW)
        self.new_episodes = [(game_return, int(length)) for game_return, length in state["new_episodes"]]
        return lost


def replay_device(device: torch.device, num_bytes: int) -> torch.device:
    """Where the replay lives: on the learner's device if it fits there with a tenth to spare, else in memory.

    Raises:
        ValueError: it fits nowhere.
    """
    if device.type == "cuda" and num_bytes < 0.9 * torch.cuda.mem_get_info(device)[0]:
        return device
    require_memory(num_bytes, "the replay (--learning.replay-capacity)")
    return torch.device("cpu")
