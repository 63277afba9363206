"""Environments as a user writes and registers them, for the tests: an image, a vector, and some of other kinds."""

import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIZE = 8


class Catch(gymnasium.Env[np.ndarray, np.int64]):
    """A ball falls down a picture, and a paddle at the bottom catches it for a reward of 1, or -1 if not.

    Channels last, as most environments show images. Actions are numbered from 1: left, stay, right.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, size: int = SIZE, render_mode: str | None = None) -> None:
        self.size, self.render_mode = size, render_mode
        self.action_space = spaces.Discrete(3, start=1)
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.column, self.paddle = 0, int(self.np_random.integers(self.size)), self.size // 2
        return self._picture(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action.dtype == self.action_space.dtype
        assert self.action_space.contains(action)
        self.paddle = int(np.clip(self.paddle + action - 2, 0, self.size - 1))
        self.row += 1
        if self.np_random.random() < 0.2:  # wind, so that random numbers are drawn within a game too
            self.column = int(np.clip(self.column + self.np_random.choice([-1, 1]), 0, self.size - 1))
        landed = self.row == self.size - 1
        reward = (1.0 if self.column == self.paddle else -1.0) if landed else 0.0
        return self._picture(), reward, landed, False, {}

    def _picture(self) -> np.ndarray:
        picture = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        picture[-1, self.paddle] = (0, 0, 255)
        picture[self.row, self.column] = (255, 255, 0)
        return picture

    def render(self) -> np.ndarray:
        cell = np.ones((-(-160 // self.size),) * 2 + (1,), dtype=np.uint8)
        return np.kron(self._picture(), cell)


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """The place in a corridor as a vector of float64; the right end gives 1. It has no picture."""

    def __init__(self, length: int = 5) -> None:
        self.length = length
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(self.length))
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = max(0, self.place + (1 if action else -1))
        arrived = self.place >= self.length
        return self._observation(), float(arrived), arrived, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.place / self.length, 1.0])


class Noisy(Corridor):
    """Not all that it shows comes from its seed, so none of its episodes can be repeated."""

    def _observation(self) -> np.ndarray:
        return np.array([self.place / self.length, np.random.default_rng().normal()])


class Ageing(Corridor):
    """It repeats its first steps, but what it shows later depends on how often the process made a step."""

    steps_of_all = 0

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        type(self).steps_of_all += 1
        self.place += 1
        old = self.place > 40 and type(self).steps_of_all % 7 == 0
        return np.array([old, 1.0]), 0.0, False, False, {}


class Broken(Corridor):
    """It cannot draw, and in a process of its own it cannot make a step either."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if "pytest" not in sys.modules:
            raise FileNotFoundError("no such level")
        return super().step(action)

    def render(self) -> np.ndarray:
        raise RuntimeError("no display")


class Diverging(Corridor):
    """From one step of a game on, the reward or what is shown is not as it should be; there the game may end."""

    def __init__(self, reward: Any = 0.0, shown: Any = (0.0, 1.0), begin: int = 40, end: bool = False) -> None:
        super().__init__()
        self.reward, self.shown, self.begin, self.end = reward, shown, begin, end

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1
        if self.place < self.begin:
            return np.zeros(2), self.reward if self.end else 0.0, False, False, {}
        return np.array(self.shown), self.reward, self.end, False, {}

    def _observation(self) -> np.ndarray:
        self.place = 0  # a game begins
        return np.zeros(2)


class Spaces(gymnasium.Env[Any, Any]):
    """Any spaces; it shows samples of them, or `shown`."""

    def __init__(self, actions: Any, observations: Any, shown: Any = ...) -> None:
        self.action_space, self.observation_space, self.shown = actions, observations, shown

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.observation_space.seed(seed)
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._show(), 0.0, False, False, {}

    def _show(self) -> Any:
        return self.observation_space.sample() if self.shown is ... else self.shown


def _register(name: str, entry_point: Any, **arguments: Any) -> None:
    gymnasium.register(f"Own/{name}", entry_point, **arguments)


_register("Catch-v0", Catch)
_register("Catch-v1", Catch, max_episode_steps=50)
_register("BigCatch-v0", Catch, kwargs={"size": 40})
_register("Corridor-v0", Corridor, max_episode_steps=30)
_register("Noisy-v0", Noisy, max_episode_steps=30)
_register("Ageing-v0", Ageing)
_register("Broken-v0", Broken, max_episode_steps=30)
_register("NoReward-v0", Diverging, kwargs={"reward": np.nan})
_register("NoRewardAtOnce-v0", Diverging, kwargs={"reward": np.nan, "begin": 3})
_register("NoSight-v0", Diverging, kwargs={"shown": (0.0, np.inf)})
_register("WrongShape-v0", Diverging, kwargs={"shown": (0.0,)})
_register("NoneReward-v0", Diverging, kwargs={"reward": None})
_register(
    "OddEnd-v0", Diverging, kwargs={"reward": np.array([0.5]), "shown": (np.nan, np.inf), "begin": 4, "end": True}
)
