"""A game of ours as a Gymnasium environment, for other libraries: one lane, its frames already stacked.

`import wn_rl` registers the games: `gymnasium.make("wn_rl/MinAtar-Breakout-v0")` takes the settings of `GameEnv`.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from wn_rl.envs import make
from wn_rl.envs.base import Lanes


class GameEnv(gymnasium.Env[NDArray[Any], np.int64], EzPickle):
    """One lane with raw rewards. Observations are the last `stack` frames merged into their leading axis.

    A frame [H, W] gives [stack, H, W] and [C, H, W] gives [stack * C, H, W], channels first: what our networks
    see, but not scaled. Frames before the start of an episode are zero.

    Args:
        suite, game: as in `wn_rl.envs.make`. max_episode_frames, resize, repeat_action_probability,
            full_action_set: rules, as there.
        stack: frames K in an observation.
        life_loss_terminates: whether a lost life ends an episode too. The next reset then continues the game and
            its stack, as in the training of DQN.
        render_mode: rgb_array, or None for no pictures.

    The info has the "lives" left where the game has lives. A copy, by pickle too, is a new one of these settings.

    Raises:
        ValueError: a name is unknown, or a value is invalid or would have no effect.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        suite: str,
        game: str,
        *,
        stack: int = 1,
        life_loss_terminates: bool = False,
        max_episode_frames: int = 108_000,
        resize: str = "area",
        repeat_action_probability: float = 0.0,
        full_action_set: bool = False,
        render_mode: str | None = "rgb_array",
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        EzPickle.__init__(self, **settings)
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        if render_mode not in ("rgb_array", None):
            raise ValueError(f"render_mode must be rgb_array or None, got {render_mode!r}")
        self.render_mode = render_mode
        rules: Any = SimpleNamespace(
            life_loss_terminates=life_loss_terminates,
            max_episode_frames=max_episode_frames,
            resize=resize,
            repeat_action_probability=repeat_action_probability,
            full_action_set=full_action_set,
            processes=0,
            channels="auto",
        )
        self._make_lane: Callable[..., Lanes] = partial(cast(Any, make), suite, game, rules, num_envs=1)
        self._lane = self._make_lane(seed=0)
        self._started = self._life_lost = False
        spec = self._lane.spec
        self.metadata = {**self.metadata, "render_fps": spec.pictures_per_second}
        self.action_space = spaces.Discrete(spec.num_actions)
        self._frames = np.zeros((stack, *spec.frame_shape), dtype=spec.dtype)
        shape = self._observation().shape
        if spec.dtype == "uint8":  # pixels 0 to 255 and objects 0 or 1, which is what their scale makes 1
            self.observation_space = spaces.Box(0, round(1 / spec.scale), shape, np.uint8)
        else:
            self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; with a seed, from that seed. After a lost life the game continues."""
        super().reset(seed=seed)
        if seed is None and self._life_lost:
            self._life_lost = False
            return self._observation(), self._info()
        if seed is None and self._started and self._lane.over[0]:
            self._lane.send(np.zeros(1, dtype=np.int64))
            step = self._lane.recv()
        else:
            self._lane.close()
            self._lane = self._make_lane(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
            step = self._lane.reset()
        self._started, self._life_lost = True, False
        self._frames.fill(0)
        self._frames[-1] = step.observation[0]
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Play one agent step: raw reward, terminated at game over, truncated at the limit of frames."""
        self._lane.send(np.array([action], dtype=np.int64))
        step = self._lane.recv()
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = step.observation[0]
        over, terminated = self._lane.over[0], not step.discount[0]
        self._life_lost = terminated and not over
        return self._observation(), float(step.reward[0]), terminated, over and not terminated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The picture as RGB [H, W, 3]; None in the render mode None."""
        return self._lane.render() if self.render_mode else None

    def close(self) -> None:
        """Free the emulator."""
        self._lane.close()

    def _info(self) -> dict[str, Any]:
        [lives] = self._lane.lives
        return {} if lives is None else {"lives": lives}

    def _observation(self) -> NDArray[Any]:
        """A copy of the stack, merged."""
        frames = self._frames
        return (frames if frames.ndim == 3 else frames.reshape(-1, *frames.shape[2:])).copy()
