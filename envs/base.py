"""What an environment suite offers: a spec, and lanes stepped in lockstep through send and recv."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EnvironmentSpec:
    """The shapes and units of a game.

    frame_shape: *O, one observation of one lane. dtype: "uint8" or "float32". scale: what the network
    multiplies an observation by (1/255 for pixels, else 1). frames_per_step: emulator frames in one agent step.
    repeatable: whether a game's seed and actions decide all that it shows; if not, saved games cannot go on.
    """

    num_actions: int
    frame_shape: tuple[int, ...]
    dtype: str
    scale: float
    frames_per_step: int
    action_meanings: tuple[str, ...]
    repeatable: bool = True

    @property
    def pictures_per_second(self) -> int:
        """Of a video, one picture a step: those of a real-time emulator of 60 frames a second, else slow ones."""
        return 60 // self.frames_per_step if self.frames_per_step > 1 else 10


class Step(NamedTuple):
    """What E lanes show after one agent step. All arrays are the receiver's own: nothing writes to them later.

    observation: [E, *O] newest frame only, in the spec's dtype.
    reward: [E] float32, raw. discount: [E] float32, 0 at game over (and at a lost life where asked for),
    else 1, a time limit included. first: [E] bool, real resets only.
    Reward and discount of step t+1 belong to the pair (t, t+1) and are void where `first`.
    """

    observation: NDArray[Any]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    first: NDArray[np.bool_]


class Environments(Protocol):
    """E lanes of one game. After a lane's episode ends, its next step ignores the action and is a `first`."""

    spec: EnvironmentSpec
    num_envs: int

    def reset(self) -> Step:
        """Start every lane anew from its seed; all lanes are `first`. Called once, before any send."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin one step: actions [E], each in [0, num_actions). ValueError otherwise."""
        ...

    def recv(self) -> Step:
        """Finish the step begun by the last send."""
        ...

    def render(self) -> NDArray[np.uint8]:
        """The picture of lane 0 as RGB [H, W, 3]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that decides the future of the lanes, as a tree of dicts, lists, numbers, strings and arrays.

        Taken between a recv and the next send. It holds no frame: a stack is its reader's to save.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        """Go on as the environments that gave this state did, bit for bit. Replaces reset.

        Returns the lanes that cannot: their game is lost, and their next row is a `first`. There is none where the
        game is repeatable.
        """
        ...

    def close(self) -> None:
        """Free emulators and threads. Idempotent."""
        ...
