"""Environments with known answers."""

from typing import Any

import numpy as np

from wn_rl.envs.base import EnvironmentSpec, Step


class Chain:
    """A corridor of `length` cells; actions left and right. Stepping off the right end gives 1 and ends.

    The optimal value of going right from cell i is discount ** (length - 1 - i). Observations are one-hot.
    `time_limit` steps cut an episode (discount stays 1). `life_loss_every`: after each such number of steps a life
    is lost (discount 0, the episode continues).
    """

    def __init__(
        self, num_envs: int, seed: int, length: int = 4, time_limit: int = 50, life_loss_every: int | None = None
    ) -> None:
        self.spec = EnvironmentSpec(2, (length,), "float32", 1.0, 1, ("left", "right"))
        self.num_envs, self.length, self.time_limit = num_envs, length, time_limit
        self.life_loss_every = life_loss_every
        self.generator = np.random.default_rng(seed)
        self.cell = np.zeros(num_envs, dtype=np.int64)
        self.age = np.zeros(num_envs, dtype=np.int64)
        self.over = np.zeros(num_envs, dtype=bool)

    def _observe(self) -> np.ndarray:
        return np.eye(self.length, dtype=np.float32)[np.clip(self.cell, 0, self.length - 1)]

    def _restart(self, lanes: np.ndarray) -> None:
        self.cell[lanes] = self.generator.integers(0, self.length, int(lanes.sum()))
        self.age[lanes] = 0

    def reset(self) -> Step:
        everyone = np.ones(self.num_envs, dtype=bool)
        self._restart(everyone)
        ones = np.ones(self.num_envs, dtype=np.float32)
        return Step(self._observe(), ones * 0, ones, everyone)

    def send(self, actions: np.ndarray) -> None:
        self.actions = actions

    def recv(self) -> Step:
        first = self.over.copy()
        moved = ~first
        self.cell[moved] += np.where(self.actions[moved] == 1, 1, -1)
        self.cell[moved] = np.maximum(self.cell[moved], 0)
        self.age[moved] += 1
        arrived = moved & (self.cell >= self.length)
        self.over = arrived | (moved & (self.age >= self.time_limit))
        self._restart(first)
        discount = np.where(arrived, 0.0, 1.0)
        if self.life_loss_every:
            discount[moved & (self.age % self.life_loss_every == 0)] = 0.0
        return Step(self._observe(), arrived.astype(np.float32), discount.astype(np.float32), first)

    def render(self) -> np.ndarray:
        return np.kron(self._observe()[:1], np.full((40, 40, 1), 255))[..., None].repeat(3, -1).astype(np.uint8)[0]

    def state_dict(self) -> dict[str, Any]:
        return {
            "cell": self.cell.copy(),
            "age": self.age.copy(),
            "over": self.over.copy(),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        self.cell, self.age, self.over = state["cell"].copy(), state["age"].copy(), state["over"].copy()
        self.generator.bit_generator.state = state["generator"]
        return []

    def close(self) -> None:
        pass
