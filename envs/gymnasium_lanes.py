"""Any environment registered with Gymnasium that has discrete actions and shows vectors or images.

A name is what `gymnasium.make` takes: `CartPole-v1`, `namespace/Name-v0`, or `module:Name-v0`, where importing
the module registers it. A name may come from a stranger's file, so that it imports nothing: the module must be
imported before. Gymnasium's own limit of steps cuts an episode, and so does `max_episode_frames`.

Every episode starts with `reset(seed=...)`, so its seed and the actions so far are its state: a saved episode is
restored by playing it again, up to where it was. This requires only that the seed decides an
episode. Where it does not, an episode that was stopped is lost and the next one begins; `spec.repeatable` says so.
"""

import importlib.util
import math
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from numpy.typing import NDArray

from wn_rl.envs.base import EnvironmentSpec, GameLost, InvalidOutput, Lane

# Of the ids that Gymnasium itself registers, those that can be trained on; the others' actions are
# continuous, or their observations single numbers.
FROM_GYMNASIUM = ("Acrobot-v1", "CartPole-v1", "MountainCar-v0")
WITH_BOX2D = ("LunarLander-v3",)
OTHER_PACKAGES = ("gymnasium", "ale_py", "wn_rl")  # whose ids are those above, and games of our other suites
PROBE_STEPS = 32

# The suite classic: the id of each task, and words for its actions.
CLASSIC = {
    "acrobot": ("Acrobot-v1", ("TORQUE_NEGATIVE", "NOOP", "TORQUE_POSITIVE")),
    "cartpole": ("CartPole-v1", ("LEFT", "RIGHT")),
    "mountain_car": ("MountainCar-v0", ("LEFT", "NOOP", "RIGHT")),
}


def describe_classic(game: str) -> "Description":
    """The Gymnasium environment of a task of classic control."""
    env_id, words = CLASSIC[game]
    description = describe(env_id)
    return replace(description, spec=replace(description.spec, action_meanings=words))


def games() -> list[str]:
    """Ids to choose from: some of Gymnasium's, and the newest version of all that other packages registered.

    Ids of a module that has not been imported are not among them, and can be named all the same.
    """
    by_version = sorted(gymnasium.registry.values(), key=lambda spec: -1 if spec.version is None else spec.version)
    newest = {(spec.namespace, spec.name): spec for spec in by_version}
    own = FROM_GYMNASIUM + (WITH_BOX2D if importlib.util.find_spec("Box2D") else ())
    return sorted({*own, *(spec.id for spec in newest.values() if _package(spec) not in OTHER_PACKAGES)})


def _package(registered: EnvSpec) -> str:
    """Where an environment comes from: its entry point is a name `module:class`, or the class itself."""
    entry_point = registered.entry_point
    module = entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    return module.partition(".")[0]


def full_name(env_id: str) -> str:
    """The id with its version, and with its module if one was given.

    Raises:
        ValueError: there is no such id, or its module is not imported.
    """
    module, colon, _ = env_id.rpartition(":")
    return module + colon + _registered(env_id).id


def _registered(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module and module not in sys.modules:
        raise ValueError(
            f"the environment {env_id} needs the module {module}, which is not imported: if you trust it, "
            f"use wn-rl --import {module} ..., or import it in your program"
        )
    try:
        namespace, bare_name, version = parse_env_id(name)
        if version is None:
            version = find_highest_version(namespace, bare_name)
        return gymnasium.spec(get_env_id(namespace, bare_name, version))
    except (gymnasium.error.Error, ImportError) as error:
        hint = "" if module else " (--env-id MODULE:ID imports the module that registers it)"
        raise ValueError(f"unknown gymnasium environment {env_id!r}: {_in_a_line(error)}{hint}") from error


@dataclass(frozen=True)
class Description:
    """What is known of an environment before an episode is played.

    space: of its observations. channels_last: images come as [H, W, C]; frames are [C, H, W]. first_action: the
    number of action 0, in the dtype of its actions. renders: whether it can give its picture as an array.
    """

    registered: EnvSpec
    spec: EnvironmentSpec
    space: spaces.Box
    channels_last: bool
    first_action: np.integer[Any]
    renders: bool


@cache
def describe(env_id: str, channels: str = "auto") -> Description:
    """Open an environment, look at its spaces, and find out whether a seed repeats an episode.

    channels: where an image has them: first, last, or auto for a guess.

    Raises:
        ValueError: it is unknown, cannot be opened, is not one for Q-learning from vectors or images, or its first
            episodes are not in its spaces.
        FloatingPointError: its first episodes show numbers that are not finite.
    """
    registered = _registered(env_id)
    env = _open(env_id, registered)
    try:
        description = _described(env_id, registered, env, channels)
    finally:
        env.close()
    return replace(description, spec=replace(description.spec, repeatable=_seed_repeats_an_episode(description)))


def _open(env_id: str, registered: EnvSpec, **options: Any) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(registered, disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"{env_id} cannot be opened: {_in_a_line(error)}") from error


def _described(env_id: str, registered: EnvSpec, env: gymnasium.Env[Any, Any], channels: str) -> Description:
    actions, shown = env.action_space, env.observation_space
    if not isinstance(actions, spaces.Discrete):
        raise ValueError(
            f"{env_id} takes actions of a {type(actions).__name__} space, and Q-learning needs Discrete ones"
        )
    if not isinstance(shown, spaces.Box) or len(shown.shape) > 3 or not all(shown.shape):
        kind = type(shown).__name__
        of_shape = f" of shape {shown.shape}" if kind == "Box" else ""
        raise ValueError(
            f"{env_id} shows a {kind} space{of_shape}, and the networks take a Box: a vector [N] or an "
            "image [H, W], [H, W, C] or [C, H, W]; gymnasium.wrappers.FlattenObservation makes vectors of most"
        )
    if channels != "auto" and len(shown.shape) != 3:
        raise ValueError(f"--environment.channels has no effect: {env_id} shows {shown.shape}, without channels")
    last = len(shown.shape) == 3 and (are_channels_last(shown.shape) if channels == "auto" else channels == "last")
    height, *others = shown.shape or (1,)
    spec = EnvironmentSpec(
        num_actions=int(actions.n),
        frame_shape=(others[1], height, others[0]) if last else (height, *others),
        dtype="uint8" if shown.dtype in (np.uint8, np.bool_) else "float32",
        scale=_scale(shown),
        frames_per_step=1,
        action_meanings=_action_meanings(env, actions),
        guess="" if len(shown.shape) < 3 or channels != "auto" else _guess(env_id, shown.shape, last),
    )
    renders = "rgb_array" in env.metadata.get("render_modes", ())
    return Description(registered, spec, shown, last, actions.start, renders)


def _guess(env_id: str, shape: tuple[int, ...], last: bool) -> str:
    axis, other = ("last", "first") if last else ("first", "last")
    return (
        f"{env_id} shows {shape}: the channels are taken to be {axis}; --environment.channels {other} changes that"
    )


def _scale(space: spaces.Box) -> float:
    """What makes the maximum of bytes and of bounded images 1; all else stays as it is."""
    kind: Any = space.dtype
    maximum = float(space.high.max())
    if maximum <= 1 or (kind != np.uint8 and len(space.shape) == 1):
        return 1.0
    limits: Any = np.finfo(kind) if np.issubdtype(kind, np.floating) else np.iinfo(kind)
    is_bounded = kind == np.uint8 or maximum < limits.max  # a type's maximum means that there is no bound
    return 1 / maximum if is_bounded else 1.0


def _action_meanings(env: gymnasium.Env[Any, Any], actions: spaces.Discrete) -> tuple[str, ...]:
    """The environment's own words for its actions, else their numbers."""
    own = getattr(env.unwrapped, "get_action_meanings", None)
    words = [str(word) for word in own()] if callable(own) else []
    numbers = [str(actions.start + action) for action in range(int(actions.n))]
    return tuple(words if len(words) == actions.n else numbers)


def _seed_repeats_an_episode(description: Description) -> bool:
    """Whether an episode is the same in an environment that played another one before and in a new one."""
    used, new = (GymnasiumLane(description, PROBE_STEPS) for _ in range(2))
    try:
        _play_at_random(used, seed=0)
        return _play_at_random(used, seed=1) == _play_at_random(new, seed=1)
    finally:
        used.close()
        new.close()


def _play_at_random(lane: "GymnasiumLane", seed: int) -> int:
    """The digest of one episode of random actions."""
    frame = np.empty(lane.spec.frame_shape, dtype=lane.spec.dtype)
    actions = np.random.default_rng(seed)
    lane.reset(seed, frame)
    while not lane.step(int(actions.integers(lane.spec.num_actions)), frame)[2]:
        pass
    return lane.digest


class GymnasiumLane(Lane):
    """One environment. An episode is cut after Gymnasium's limit of steps, or max_frames where that is less.

    digest: of all that the episode has shown so far.
    """

    def __init__(self, description: Description, max_frames: int) -> None:
        self.spec = description.spec
        self.digest = 0
        self._description = description
        self._max_frames = max_frames
        self._maximum = description.space.high.max()
        rendering = {"render_mode": "rgb_array"} if description.renders else {}
        self._env = _open(description.registered.id, description.registered, **rendering)
        self._seed = 0
        self._actions: list[int] = []  # of this episode

    def reset(self, seed: int, out: NDArray[Any]) -> None:
        observation, _ = self._env.reset(seed=seed)
        self._seed, self._actions = seed, []
        self._write(observation, out)
        self.digest = zlib.crc32(out.data)

    def step(self, action: int, out: NDArray[Any]) -> tuple[float, float, bool]:
        """As `Lane.step`. InvalidOutput: what it gives is unfit. FloatingPointError: it is not finite."""
        observation, reward, terminated, truncated, _ = self._env.step(self._description.first_action + action)
        self._actions.append(action)
        self._write(observation, out, is_last=terminated)
        number = _as_array(reward)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise InvalidOutput(f"{self._place}: the reward is {_in_a_line(reward)[:80]}, not one number")
        reward = number.item()
        if not math.isfinite(reward):
            raise FloatingPointError(f"{self._place}: the reward is {reward}")
        self.digest = zlib.crc32(out.data, zlib.crc32(struct.pack("<d?", reward, terminated), self.digest))
        over = terminated or truncated or len(self._actions) >= self._max_frames
        return float(reward), float(not terminated), bool(over)

    def _write(self, observation: Any, out: NDArray[Any], *, is_last: bool = False) -> None:
        """Convert an observation of the space. is_last: nothing follows it, so that its numbers do not matter."""
        space, given = self._description.space, _as_array(observation)
        if given.shape != space.shape or not _fits(given, space.dtype, self._maximum):
            raise InvalidOutput(
                f"{self._place}: the observation is {given.dtype} of shape {given.shape}, and its space has "
                f"{space.dtype} of shape {space.shape} up to {self._maximum}"
            )
        out[:] = given.transpose(2, 0, 1) if self._description.channels_last else given
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            if not is_last:
                raise FloatingPointError(f"{self._place}: the observation has numbers that are not finite")
            np.nan_to_num(out, copy=False, posinf=0, neginf=0)

    @property
    def _place(self) -> str:
        """Seed and step find the place again."""
        return f"{self._description.registered.id}, episode of seed {self._seed}, step {len(self._actions)}"

    def render(self) -> NDArray[np.uint8]:
        """As `Lane.render`. ValueError: there is no picture, or drawing it fails."""
        name = self._description.registered.id
        if not self._description.renders:
            raise ValueError(f"{name} gives no picture: it has no render mode rgb_array")
        try:
            picture: NDArray[np.uint8] = np.asarray(self._env.render()).astype(np.uint8, copy=False)
            if picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"the picture has the shape {picture.shape}, not [H, W, 3]")
        except Exception as error:  # whatever an environment raises, training continues without pictures
            raise ValueError(f"{name} cannot draw: {type(error).__name__}: {_in_a_line(error)}") from error
        return picture

    def state_dict(self) -> dict[str, Any]:
        """Seed, actions and digest of the episode; nothing where they do not decide it."""
        if not self.spec.repeatable:
            return {}
        actions = np.array(self._actions, dtype=np.min_scalar_type(self.spec.num_actions - 1))
        return {"seed": self._seed, "actions": actions, "digest": self.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the saved episode again, up to where it was. GameLost: it took another course."""
        if not state:
            raise GameLost
        frame = np.empty(self.spec.frame_shape, dtype=self.spec.dtype)
        self.reset(int(state["seed"]), frame)
        over = False
        for action in state["actions"].tolist():
            if over:
                raise GameLost
            over = self.step(action, frame)[2]
        if self.digest != int(state["digest"]):
            raise GameLost

    def close(self) -> None:
        self._env.close()


def are_channels_last(shape: tuple[int, ...]) -> bool:
    """A guess for images [H, W, C] or [C, H, W]: two equal axes are the picture, else the larger ones are.

    >>> are_channels_last((84, 84, 3)), are_channels_last((12, 10, 10)), are_channels_last((3, 48, 40))
    (True, False, False)
    """
    first, middle, last = shape
    return last <= first if (first == middle) == (middle == last) else first == middle


def _as_array(value: Any) -> NDArray[Any]:
    """What an environment gave; an array of dtype object where it cannot be one of numbers."""
    try:
        return np.asarray(value)
    except Exception:  # whatever the conversion of a foreign type raises
        return np.array(None)


def _fits(given: NDArray[Any], dtype: Any, maximum: Any) -> bool:
    """Whether a dtype has these numbers: floats all, but for rounding, and integers exactly, up to a maximum."""
    if dtype.kind == "f":
        return given.dtype.kind in "biuf"
    if given.dtype != dtype and (given.dtype.kind not in "biu" or (given.astype(dtype) != given).any()):
        return False
    return bool(given.max() <= maximum)


def _in_a_line(text: object) -> str:
    return " ".join(str(text).split())
