"""What a config may hold: values of the right kind, names that are known, numbers that can be, also together."""

import dataclasses
import math
import operator
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from wn_rl.config import Config

MAX_ENVS = 4096  # more lanes than this are a mistake that would build environments for hours
MAX_THREADS = 1024  # more may end the process


def check(config: "Config") -> None:
    """ValueError on the first value that cannot be, in words of the flag that sets it."""
    _check_values(config)
    _check_ranges(config)
    _check_combinations(config)


class UnknownNameError(ValueError):
    """A name is none of those that its field takes in this process."""


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "True or False"),
}


def _is_of_kind(value: Any, hint: Any) -> bool:
    """Whether a value may stand in a field of this type. True and False are no numbers."""
    types = _KINDS[hint][0]
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _check_values(part: Any, prefix: str = "") -> None:
    """ValueError on the first value of another type, UnknownNameError on a name that is none of its field's."""
    from wn_rl.config import TrackerName  # as it is now: `wn_rl.api.allow` adds names

    for name, hint in typing.get_type_hints(type(part)).items():
        value, flag = getattr(part, name), f"--{prefix}{name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            _check_values(value, f"{name}.")
        kinds = [kind for kind in (hint, *typing.get_args(hint)) if kind in _KINDS]
        optional = type(None) in typing.get_args(hint)
        if kinds and not (optional and value is None) and not any(_is_of_kind(value, kind) for kind in kinds):
            raise ValueError(f"{flag} must be {_KINDS[kinds[0]][1]}, got {value!r}")
        if name == "track" and not isinstance(value, tuple):
            raise ValueError(f"{flag} must be a tuple of names, got {value!r}")
        values, literal = (value, TrackerName) if name == "track" else ((value,), hint)
        if typing.get_origin(literal) is Literal:
            choices = typing.get_args(literal)
            unknown = [value for value in values if value not in choices]
            if unknown:
                raise UnknownNameError(f"{flag} must be one of {', '.join(choices)}, got {unknown[0]!r}")


_AT_LEAST_1 = (
    *("steps", "num_envs", "log_period", "checkpoint_period", "environment.max_episode_frames"),
    *("network.stack", "learning.batch_size", "learning.update_period"),
    *("learning.target_period", "learning.replay_capacity", "learning.replay_start", "learning.epsilon_steps"),
    *("evaluation.steps", "evaluation.num_envs", "evaluation.held_out_states"),
)
_AT_LEAST_0 = (
    *("seed", "torch_threads", "environment.emulator_threads"),
    *("evaluation.period", "evaluation.video_period"),
)
_AT_LEAST_2 = ("network.init_states",)  # a standard deviation needs two
_THREADS = ("torch_threads", "environment.emulator_threads")
_FRACTIONS = ("learning.discount", "learning.epsilon_start", "learning.epsilon_end", "evaluation.epsilon")
_POSITIVE = ("learning_rate", "network.log_scale", "network.max_v_norm")

_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_AT_LEAST_1, lambda value: value >= 1, "at least 1"),
    (_AT_LEAST_0, lambda value: value >= 0, "at least 0"),
    (_AT_LEAST_2, lambda value: value >= 2, "at least 2"),
    (("num_envs", "evaluation.num_envs"), lambda value: value <= MAX_ENVS, f"at most {MAX_ENVS}"),
    (_THREADS, lambda value: value <= MAX_THREADS, f"at most {MAX_THREADS}"),
    (_FRACTIONS, lambda value: 0 <= value <= 1, "between 0 and 1"),
    (_POSITIVE, lambda value: value is None or 0 < value < math.inf, "greater than 0"),
)


def _check_ranges(config: "Config") -> None:
    """ValueError on the first number that cannot be, as the flag that sets it.

    >>> from wn_rl.config import Config
    >>> Config("breakout", steps=-1)
    Traceback (most recent call last):
    ValueError: --steps must be at least 1, got -1
    """
    for fields, allowed, says in _RANGES:
        for field_name in fields:
            value = operator.attrgetter(field_name)(config)
            if not allowed(value):
                flag = "optimizer.learning-rate" if field_name == "learning_rate" else field_name.replace("_", "-")
                raise ValueError(f"--{flag} must be {says}, got {value}")
    if config.seed >= 2**31:
        raise ValueError(f"--seed must be below 2**31, got {config.seed}")


def _check_combinations(config: "Config") -> None:
    """ValueError on numbers that cannot be together."""
    learning, network = config.learning, config.network
    if learning.target_period % learning.update_period:
        raise ValueError(
            f"--learning.target-period {learning.target_period} must be a multiple of "
            f"--learning.update-period {learning.update_period}: the target is copied after an update"
        )
    if learning.replay_start > learning.replay_capacity:
        raise ValueError(
            f"--learning.replay-start {learning.replay_start} is more than "
            f"--learning.replay-capacity {learning.replay_capacity}"
        )
    for flag, count in (
        ("learning.batch-size", learning.batch_size),
        ("network.init-states", network.init_states),
        ("evaluation.held-out-states", config.evaluation.held_out_states),
    ):
        if count > learning.replay_capacity:
            raise ValueError(
                f"--{flag} {count} is more than --learning.replay-capacity {learning.replay_capacity}"
            )
    least = config.num_envs * (network.stack + 1)
    if learning.replay_start < least:
        raise ValueError(
            f"--learning.replay-start {learning.replay_start} gives {config.num_envs} lanes too few frames "
            f"for a stack of {network.stack}: use at least {least}"
        )
    if config.environment.resize == "bilinear" and max(config.num_envs, config.evaluation.num_envs) > 1:
        raise ValueError("--environment.resize bilinear needs one lane: --num-envs 1 --evaluation.num-envs 1")
    if learning.batch_size < 2 and _has_batch_statistics(config.parameterization):
        raise ValueError(f"--learning.batch-size must be at least 2 for {config.parameterization}")
    for name, option in (("log-scale", network.log_scale), ("max-v-norm", network.max_v_norm)):
        if option is not None and not _is_normalized(config.parameterization):
            raise ValueError(
                f"--network.{name} needs a weight_norm parameterization, not {config.parameterization}"
            )


def _is_normalized(parameterization: str) -> bool:
    """What the registry says, those of the user's own included."""
    from wn_rl.nn import is_normalized  # only here: it imports torch

    return is_normalized(parameterization)


def _has_batch_statistics(parameterization: str) -> bool:
    """As `_is_normalized`."""
    from wn_rl.nn.layers import has_batch_statistics

    return has_batch_statistics(parameterization)
