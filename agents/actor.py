"""Acting: the greedy action of each lane, and epsilon-greedy exploration."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wn_rl.agents.accelerate import Transfer, accelerated
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.seeding import random_bits, scale_to_range, scale_to_unit

_STREAM = 0xAC7
DRAW_AHEAD = 256  # steps whose random numbers are made at once, since they depend on counters alone


class Actor:
    """Chooses actions for E lanes. Its numbers are a function of (seed, step, lane): no random state.

    network: [E, K, *O] frames to [E, A] action values; the actor only calls it. needs_values: ask it also where
    all actions are random, so that `max_q` [E] holds the maximum action value of each lane after every step.
    """

    def __init__(
        self,
        network: nn.Module,
        num_envs: int,
        spec: EnvironmentSpec,
        *,
        stack: int,
        seed: int,
        accelerate: str = "eager",
        needs_values: bool = False,
    ) -> None:
        self.network, self.seed, self.num_actions = network, seed, spec.num_actions
        self.num_steps = 0
        device = next(network.parameters()).device
        self._stacks = Stacks(num_envs, spec, stack, device, accelerate)
        self.max_q = torch.zeros(num_envs, device=device)
        self._greedy = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._needs_values = needs_values
        self._ask_network = accelerated(self._choose_greedily, accelerate)
        self._draws: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    def act(self, step: Step, epsilon: float) -> NDArray[np.int64]:
        """Push the newest frames and choose actions [E]: random with probability epsilon, else greedy."""
        self._stacks.push(step)
        uniform, random_action = self._random_numbers()
        explore = uniform < epsilon
        self.num_steps += 1
        if explore.all() and not self._needs_values:
            return random_action
        self._ask_network()
        return np.where(explore, random_action, self._greedy.cpu().numpy())

    @torch.no_grad()
    def _choose_greedily(self) -> None:
        torch.max(self.network(self._stacks.frames), dim=1, out=(self.max_q, self._greedy))

    def _random_numbers(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        offset = self.num_steps % DRAW_AHEAD
        if self._draws is None or offset == 0:
            start = self.num_steps - offset
            steps = torch.arange(start, start + DRAW_AHEAD)[:, None]
            lanes = torch.arange(len(self._greedy))
            uniform = scale_to_unit(random_bits((self.seed, _STREAM, 0), steps, lanes))
            action = scale_to_range(random_bits((self.seed, _STREAM, 1), steps, lanes), self.num_actions)
            self._draws = uniform.numpy(), action.numpy()
        uniforms, actions = self._draws
        return uniforms[offset], actions[offset].copy()

    def state_dict(self) -> dict[str, Any]:
        """The stacks and the step count."""
        return {"frames": self._stacks.frames.cpu().numpy().copy(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self._stacks.frames.copy_(torch.from_numpy(state["frames"]))
        self.num_steps = state["num_steps"]
        self._draws = None


class Stacks:
    """The last K frames of each lane, frames [E, K, *O], in one tensor that stays in place on a device.

    On a CPU numpy pushes frames: it copies little arrays in a fraction of torch's time. To another device only
    the newest frames travel.
    """

    def __init__(
        self, num_envs: int, spec: EnvironmentSpec, stack: int, device: torch.device, accelerate: str = "eager"
    ) -> None:
        shape = (num_envs, stack, *spec.frame_shape)
        self.frames = torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=device)
        self._transfer = None if device.type == "cpu" else Transfer(device)
        self._append = accelerated(self._append_received, accelerate)

    def push(self, step: Step) -> None:
        """Append the newest frames and drop the oldest; where the step is `first`, earlier frames become zero."""
        if self._transfer is None:
            frames = self.frames.numpy()
            frames[:, :-1] = frames[:, 1:]
            frames[step.first] = 0
            frames[:, -1] = step.observation
        else:
            self._transfer.send([torch.from_numpy(step.observation), torch.from_numpy(step.first)])
            self._append()

    def _append_received(self) -> None:
        assert self._transfer is not None
        newest, first = self._transfer.receive(len(self.frames))
        if self.frames.shape[1] > 1:
            later = self.frames[:, 1:]  # [E, K - 1, *O]
            self.frames[:, :-1].copy_(later.masked_fill(first.view(-1, *[1] * (later.dim() - 1)), 0))
        self.frames[:, -1].copy_(newest)
