"""Gymnasium's classic control with discrete actions, observed as float32 vectors."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from wn_rl.envs.base import EnvironmentSpec
from wn_rl.envs.lanes import Lanes, Settings

IDS = {"acrobot": "Acrobot-v1", "cartpole": "CartPole-v1", "mountain_car": "MountainCar-v0"}
ACTION_NAMES = {
    "acrobot": ("TORQUE_NEGATIVE", "NOOP", "TORQUE_POSITIVE"),
    "cartpole": ("LEFT", "RIGHT"),
    "mountain_car": ("LEFT", "NOOP", "RIGHT"),
}


def games() -> list[str]:
    """The tasks of the suite."""
    return sorted(IDS)


def make(game: str, settings: Settings) -> Lanes:
    """Lanes of one task."""
    return Lanes(lambda seed: ClassicLane(game, settings.max_episode_frames), settings.num_envs, settings.seed)


class ClassicLane:
    """One task. An episode is cut after Gymnasium's own limit of steps, or max_frames where that is less."""

    def __init__(self, game: str, max_frames: int) -> None:
        # The bare task: it draws random numbers at a reset alone, so a seed for each leaves none to save.
        task: Any = gymnasium.make(IDS[game], render_mode="rgb_array", disable_env_checker=True)
        self._task = task.unwrapped
        limit = gymnasium.spec(IDS[game]).max_episode_steps
        self._max_frames = max_frames if limit is None else min(limit, max_frames)
        self._frames = 0
        self.spec = EnvironmentSpec(
            num_actions=int(self._task.action_space.n),
            frame_shape=self._task.observation_space.shape,
            dtype="float32",
            scale=1.0,
            frames_per_step=1,
            action_meanings=ACTION_NAMES[game],
        )

    def reset(self, seed: int, out: NDArray[np.float32]) -> None:
        """Start an episode at a state drawn from the seed."""
        out[:], _ = self._task.reset(seed=seed)
        self._frames = 0

    def step(self, action: int, out: NDArray[np.float32]) -> tuple[float, float, bool]:
        """Play one step: raw reward, discount, and whether the episode is over or cut."""
        out[:], reward, terminal, _, _ = self._task.step(action)
        self._frames += 1
        return reward, float(not terminal), terminal or self._frames >= self._max_frames

    def render(self) -> NDArray[np.uint8]:
        """The task's own picture as RGB [H, W, 3].

        Raises:
            ValueError: pygame, which draws it, is not installed.
        """
        try:
            picture: NDArray[np.uint8] = self._task.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError("pictures of classic control need pygame: pip install pygame") from error
        return picture

    def state_dict(self) -> dict[str, Any]:
        """The physical state and the steps played."""
        return {"state": np.array(self._task.state), "frames": self._frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the lane that gave this state."""
        self._task.reset()  # a fresh task refuses to step before its first reset
        self._task.state = state["state"].copy()
        self._frames = int(state["frames"])
