"""An environment of your own, with the whole command line of wn-rl:

python examples/own_environment.py train corridor --suite corridor --preset classic --learning.discount 0.9 \
    --learning.target-period 100 --steps 5000
python examples/own_environment.py evaluate runs/RUN
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_rl.cli import main
from wn_rl.envs import Suite
from wn_rl.envs.base import EnvironmentSpec, Lanes, Rules
from wn_rl.registry import SUITES

LENGTH = 8


class Corridor:
    """One lane: a row of cells, from the left end to a reward of 1 at the right one."""

    spec = EnvironmentSpec(
        num_actions=2,
        frame_shape=(LENGTH,),
        dtype="float32",
        scale=1.0,  # what the network multiplies observations by
        frames_per_step=1,
        action_meanings=("LEFT", "RIGHT"),
    )

    def __init__(self, rules: Rules) -> None:
        self._limit = rules.max_episode_frames
        self._cell = self._steps = 0

    def reset(self, seed: int, out: NDArray[np.float32]) -> None:
        """Start an episode; all that is random in it comes from the seed. The observation goes to `out`."""
        self._cell = self._steps = 0
        self._observe(out)

    def step(self, action: int, out: NDArray[np.float32]) -> tuple[float, float, bool]:
        """Raw reward, discount (0 where nothing follows, 1 at a time limit), and whether the episode is over."""
        self._cell = max(0, self._cell + 2 * action - 1)
        self._steps += 1
        self._observe(out)
        at_end = self._cell == LENGTH - 1
        return float(at_end), float(not at_end), at_end or self._steps >= self._limit

    def _observe(self, out: NDArray[np.float32]) -> None:
        out[:] = np.arange(LENGTH) == self._cell

    def render(self) -> NDArray[np.uint8]:
        """The picture as RGB [H, W, 3]."""
        cells = np.where(np.arange(LENGTH) == self._cell, 255, 40).astype(np.uint8)
        return np.broadcast_to(cells.repeat(24)[None, :, None], (24, 24 * LENGTH, 3)).copy()

    def state_dict(self) -> dict[str, Any]:
        """All that decides the rest of the episode."""
        return {"cell": self._cell, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the lane that gave this state."""
        self._cell, self._steps = state["cell"], state["steps"]


def make(game: str, rules: Rules, num_envs: int, seed: int) -> Lanes:
    """Lanes that all start alike: the corridor has no randomness that a seed decides."""
    return Lanes(lambda lane_seed: Corridor(rules), num_envs, seed)


SUITES["corridor"] = Suite(games=lambda: ["corridor"], make=make, pixels=False)

if __name__ == "__main__":
    main()
