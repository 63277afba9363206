"""MinAtar (Young & Tian 2019): five games on a 10x10 grid that learn in minutes.

Difficulty ramping is on. A frame is one grid; each channel is one kind of object, 0 or 1.
"""

import colorsys
import copy
import importlib.util
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_rl.envs.base import Environments, EnvironmentSpec, Lane, Rules
from wn_rl.envs.processes import make_lanes

GAMES = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]
ACTION_NAMES = {"n": "NOOP", "l": "LEFT", "u": "UP", "r": "RIGHT", "d": "DOWN", "f": "FIRE"}
PIXELS_PER_CELL = 24
# Attributes of a game that never change, and its random numbers, which are saved by their own method.
NOT_IN_STATES = {"channels", "action_map", "ramping", "random"}


def games() -> list[str]:
    """The games of MinAtar."""
    return list(GAMES)


def make(game: str, rules: Rules, num_envs: int, seed: int) -> Environments:
    """Lanes of one game."""
    return make_lanes(lambda _: MinAtarLane(_game_class(game)(ramping=True), rules), rules, num_envs, seed)


@cache
def _game_class(game: str) -> Any:
    """The game's own module alone: importing the package would load matplotlib and seaborn, for a window."""
    package = importlib.util.find_spec("minatar")
    assert package is not None
    assert package.origin is not None
    return runpy.run_path(str(Path(package.origin).parent / "environments" / f"{game}.py"))["Env"]


class MinAtarLane(Lane):
    """One game of MinAtar. Its frames [C, 10, 10] are 0 or 1."""

    def __init__(self, game: Any, rules: Rules) -> None:
        self._game = game
        self._max_frames = rules.max_episode_frames
        self._repeat_probability = rules.repeat_action_probability
        self._frames = 0
        full = rules.full_action_set
        self._actions: list[int] = list(range(len(game.action_map))) if full else game.minimal_action_set()
        self._last_action = 0
        height, width, channels = game.state_shape()
        self.spec = EnvironmentSpec(
            num_actions=len(self._actions),
            frame_shape=(channels, height, width),
            dtype="uint8",
            scale=1.0,
            frames_per_step=1,
            action_meanings=tuple(ACTION_NAMES[game.action_map[action]] for action in self._actions),
        )

    def reset(self, seed: int, out: NDArray[np.uint8]) -> None:
        self._game.random = np.random.RandomState(seed)
        self._game.reset()
        self._frames = 0
        out[:] = self._game.state().transpose(2, 0, 1)

    def step(self, action: int, out: NDArray[np.uint8]) -> tuple[float, float, bool]:
        # As minatar's own wrapper, whose last action outlives an episode. At 0 nothing is drawn.
        repeats = self._repeat_probability > 0 and self._game.random.rand() < self._repeat_probability
        self._last_action = self._last_action if repeats else self._actions[action]
        reward, terminal = self._game.act(self._last_action)
        self._frames += 1
        out[:] = self._game.state().transpose(2, 0, 1)
        return reward, float(not terminal), terminal or self._frames >= self._max_frames

    def render(self) -> NDArray[np.uint8]:
        """One colour a channel, the last channel on top, as RGB [240, 240, 3]."""
        grid = self._game.state()
        channels = grid.shape[2]
        colours = [(0.0, 0.0, 0.0)] + [colorsys.hsv_to_rgb(c / channels, 0.7, 1.0) for c in range(channels)]
        top = (grid * np.arange(1, channels + 1)).max(axis=2)
        picture: NDArray[np.uint8] = (np.array(colours) * 255).astype(np.uint8)[top]
        return picture.repeat(PIXELS_PER_CELL, axis=0).repeat(PIXELS_PER_CELL, axis=1)

    def state_dict(self) -> dict[str, Any]:
        """Every attribute of the game that changes, and its random numbers."""
        attributes = {name: value for name, value in vars(self._game).items() if name not in NOT_IN_STATES}
        return {
            "frames": self._frames,
            "last_action": self._last_action,
            "random": self._game.random.get_state(legacy=False),
            "game": copy.deepcopy(attributes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._frames = int(state["frames"])
        self._last_action = int(state["last_action"])
        self._game.random = np.random.RandomState()
        self._game.random.set_state(state["random"])
        vars(self._game).update(copy.deepcopy(state["game"]))
