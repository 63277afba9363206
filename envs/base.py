"""What an environment suite offers: a spec, and lanes stepped in lockstep through send and recv."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EnvironmentSpec:
    """The shapes and units of a game.

    frame_shape: *O, one observation of one lane. dtype: "uint8" or "float32". scale: what the network
    multiplies an observation by (1/255 for pixels, else 1). frames_per_step: emulator frames in one agent step.
    repeatable: whether a game's seed and actions decide all that it shows; if not, saved episodes are lost.
    guess: a line on what was guessed of the environment, or nothing.
    """

    num_actions: int
    frame_shape: tuple[int, ...]
    dtype: str
    scale: float
    frames_per_step: int
    action_meanings: tuple[str, ...]
    repeatable: bool = True
    guess: str = ""

    @property
    def pictures_per_second(self) -> int:
        """Of a video with one picture a step: a real-time emulator shows 60 frames a second, others are slow."""
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


def first_step(observation: NDArray[Any]) -> Step:
    """The step in which all lanes are `first`."""
    ones = np.ones(len(observation), dtype=np.float32)
    return Step(observation, reward=np.zeros_like(ones), discount=ones, first=ones.astype(bool))


class Environments(Protocol):
    """E lanes of one game. After a lane's episode ends, its next step ignores the action and is a `first`."""

    spec: EnvironmentSpec
    num_envs: int

    def reset(self) -> Step:
        """Start every lane anew from its seed; all lanes are `first`. Called once, before any send."""

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin one step: actions [E], each in [0, num_actions). ValueError otherwise."""

    def recv(self) -> Step:
        """Finish the step begun by the last send."""

    def render(self) -> NDArray[np.uint8]:
        """The picture of lane 0 as RGB [H, W, 3]."""

    def state_dict(self) -> dict[str, Any]:
        """All that decides the future of the lanes, as a tree of dicts, lists, numbers, strings and arrays.

        Taken between a recv and the next send. It holds no frame: a stack is its reader's to save.
        """

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        """Continue as the environments that gave this state did, bit for bit. Replaces reset.

        Returns the lanes whose episode could not be restored; their next row is a `first`. Where the game is
        repeatable, there is no such lane.
        """

    def close(self) -> None:
        """Free emulators and threads. Idempotent."""


class Rules(Protocol):
    """How games are played. `wn_rl.config.EnvironmentConfig` says what each rule is."""

    @property
    def life_loss_terminates(self) -> bool: ...

    @property
    def max_episode_frames(self) -> int: ...

    @property
    def repeat_action_probability(self) -> float: ...

    @property
    def full_action_set(self) -> bool: ...

    @property
    def resize(self) -> str: ...

    @property
    def processes(self) -> int: ...

    @property
    def channels(self) -> str: ...


class InvalidOutput(ValueError):
    """A user's environment gave what its spaces do not declare, or no reward. One line names the place."""


class GameLost(Exception):
    """A lane could not restore a saved episode."""


class Lane(Protocol):
    """One game, played again and again. Observations are written to `out`, shaped as the spec says.

    A lane that holds more than memory has a method `close` too.
    """

    spec: EnvironmentSpec

    def reset(self, seed: int, out: NDArray[Any]) -> None:
        """Start an episode whose random numbers come from the seed."""

    def step(self, action: int, out: NDArray[Any]) -> tuple[float, float, bool]:
        """Play one agent step: raw reward, discount, and whether the episode is over or cut."""

    def render(self) -> NDArray[np.uint8]:
        """The picture as RGB [H, W, 3]."""

    def state_dict(self) -> dict[str, Any]:
        """All that decides the rest of the episode, but the pending reset and the seeds."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the lane that gave this state. GameLost: that is not possible, and it waits for a reset."""


def lane_seed(seed: int, lane: int, index: int) -> int:
    """31 bits for the index-th start of a lane: the same whatever the number of lanes."""
    return int(np.random.SeedSequence([seed, lane, index]).generate_state(1)[0] >> 1)


def check_actions(actions: NDArray[np.int64], num_envs: int, num_actions: int) -> None:
    """ValueError unless actions are num_envs integers in [0, num_actions)."""
    if not isinstance(actions, np.ndarray) or actions.shape != (num_envs,) or actions.dtype.kind not in "iu":
        raise ValueError(f"actions must be an integer array of shape ({num_envs},), got {actions!r}")
    if actions.min() < 0 or actions.max() >= num_actions:
        raise ValueError(f"actions must be in [0, {num_actions}), got {actions.tolist()}")


class Lanes(Environments):
    """Environments made of independent lanes, stepped inside recv.

    make_lane: from a seed to a new lane. Lane i plays its j-th episode from `lane_seed(seed, i, j)`. first_lane:
    the number of the first lane here, where others are elsewhere.
    """

    def __init__(self, make_lane: Callable[[int], Lane], num_envs: int, seed: int, *, first_lane: int = 0) -> None:
        self.num_envs = num_envs
        self._make_lane = make_lane
        self._seed = seed
        self._numbers = range(first_lane, first_lane + num_envs)
        self._actions: list[int] | None = None
        self._new_lanes()
        self.spec = self._lanes[0].spec

    def _new_lanes(self) -> None:
        self._lanes = [self._make_lane(lane_seed(self._seed, number, 0)) for number in self._numbers]
        self._games = [0] * self.num_envs  # episodes started
        self._over = [True] * self.num_envs  # the next row is a `first`

    def reset(self) -> Step:
        if any(self._games):
            self.close()
            self._new_lanes()
        self._actions = [0] * self.num_envs
        return self.recv()

    def send(self, actions: NDArray[np.int64]) -> None:
        if not any(self._games):
            raise RuntimeError("reset or load_state_dict comes before send")
        check_actions(actions, self.num_envs, self.spec.num_actions)
        self._actions = actions.tolist()

    def recv(self) -> Step:
        """Play one step in every lane, or start its next episode."""
        if self._actions is None:
            raise RuntimeError("send comes before recv")
        actions, self._actions = self._actions, None
        observation = np.empty((self.num_envs, *self.spec.frame_shape), dtype=self.spec.dtype)
        step = first_step(observation)._replace(first=np.array(self._over))
        for index, lane in enumerate(self._lanes):
            if self._over[index]:
                lane.reset(lane_seed(self._seed, self._numbers[index], self._games[index]), observation[index])
                self._games[index] += 1
                self._over[index] = False
            else:
                result = lane.step(actions[index], observation[index])
                step.reward[index], step.discount[index], self._over[index] = result
        return step

    @property
    def over(self) -> list[bool]:
        """Whether each lane's episode is over or cut, so that its next step is a `first`."""
        return list(self._over)

    @property
    def lives(self) -> list[int | None]:
        """The lives left in each lane; None in games without lives."""
        return [getattr(lane, "lives", None) for lane in self._lanes]

    def render(self) -> NDArray[np.uint8]:
        return self._lanes[0].render()

    def state_dict(self) -> dict[str, Any]:
        return {
            "games": list(self._games),
            "over": [bool(over) for over in self._over],
            "lanes": [lane.state_dict() for lane in self._lanes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        self._games = [int(games) for games in state["games"]]
        self._over = [bool(over) for over in state["over"]]
        self._actions = None
        lost = []
        for index, (lane, lane_state) in enumerate(zip(self._lanes, state["lanes"], strict=True)):
            try:
                lane.load_state_dict(lane_state)
            except GameLost:
                if not self._over[index]:
                    lost.append(index)
                self._over[index] = True
        return lost

    def close(self) -> None:
        """Close the lanes that hold more than memory. Idempotent."""
        for lane in self._lanes:
            if hasattr(lane, "close"):
                lane.close()
        self._lanes = []
