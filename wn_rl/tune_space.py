"""What `wn-rl tune` searches: fields of Config, each with the values that it may take.

    FIELD=A,B,C            one of these
    FIELD=LOW:HIGH         any number between, both included; whole numbers in a field of whole numbers
    FIELD=LOW:HIGH:STEP    LOW, LOW + STEP, ... of these
    FIELD=log:LOW:HIGH     any number between, equal factors equally likely

A field is named as its flag is, `learning.target_period` or `learning.target-period`, or by its last part where
one field alone ends so: `target_period`.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wn_rl.config import Config
from wn_rl.errors import UserError

Value = str | int | float
"""A text as it would be typed, or a number from a range."""

# What the trials have in common: where and how long they run, and how they are tested.
_SHARED = {
    *("game", "suite", "preset", "steps", "seed", "device", "track", "run_name", "group"),
    *("log_period", "checkpoint_period", "keep_replay", "torch_threads", "evaluation"),
}
_SWITCH = {"true": "", "false": "no-"}


@dataclass(frozen=True)
class Choice:
    """One of several values, as they are typed."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included. whole: an integer. step: if not 0, only low + n * step."""

    field: str
    low: float
    high: float
    whole: bool
    log: bool = False
    step: int = 0


Dimension = Choice | Range


def parse_space(texts: Iterable[str]) -> tuple[Dimension, ...]:
    """The dimensions of a space as it is typed.

    >>> parse_space(["learning_rate=log:1e-5:1e-2", "parameterization=normal,weight_norm"])[1]
    Choice(field='parameterization', values=('normal', 'weight_norm'))

    Raises:
        UserError: there is none, a field is unknown or named twice, or has no values.
    """
    space = tuple(_parse(text) for text in texts)
    if not space:
        raise UserError("--space: name at least one field and its values: learning_rate=log:1e-5:1e-2")
    fields = [dimension.field for dimension in space]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice:
        raise UserError(f"--space: {twice} is given twice")
    return space


def _parse(text: str) -> Dimension:
    name, equals, values = text.partition("=")
    if not equals:
        raise UserError(f"--space: {text!r} is no FIELD=VALUES")
    field, kind = _field(name)
    return _range(field, kind, values) if ":" in values else _choice(field, kind, values)


def _field(name: str) -> tuple[str, Any]:
    """The full name of a field, and its type."""
    fields = dict(_fields(Config))
    wanted = name.replace("-", "_")
    found = [field for field in fields if field == wanted or field.split(".")[-1] == wanted]
    if wanted in _SHARED or wanted.split(".")[0] in _SHARED:
        raise UserError(f"--space: {name} is the same in all trials: give it as a flag")
    if len(found) > 1:
        raise UserError(f"--space: {name!r} is {' or '.join(found)}: give the whole name")
    if not found:
        ends = {field.split(".")[-1]: field for field in fields} | {field: field for field in fields}
        [near] = difflib.get_close_matches(wanted, ends, n=1, cutoff=0)
        raise UserError(f"--space: no field {name!r}; did you mean {ends[near]}?")
    return found[0], fields[found[0]]


def _fields(part: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that trials may differ in, with their types."""
    for name, kind in typing.get_type_hints(part).items():
        if dataclasses.is_dataclass(kind) and name not in _SHARED:
            yield from _fields(typing.cast(type[Any], kind), f"{name}.")
        elif f"{prefix}{name}" not in _SHARED:
            yield f"{prefix}{name}", kind


def _choice(field: str, kind: Any, text: str) -> Choice:
    values = tuple(text.split(","))
    if not all(values):
        raise UserError(f"--space: {field} has an empty value in {text!r}")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice:
        raise UserError(f"--space: {field} has the value {twice} twice")
    if kind is bool and not {value.lower() for value in values} <= _SWITCH.keys():
        raise UserError(f"--space: {field} is true or false, not {text!r}")
    return Choice(field, values)


def _range(field: str, kind: Any, text: str) -> Range:
    whole = kind is int
    if not whole and float not in (kind, *typing.get_args(kind)):
        raise UserError(f"--space: {field} takes no range: give its values as {field}=A,B")
    log = text.startswith("log:")
    words = text.removeprefix("log:").split(":")
    if len(words) != 2 and (log or len(words) != 3):
        raise UserError(f"--space: {text!r} is no range: give LOW:HIGH, LOW:HIGH:STEP or log:LOW:HIGH")
    low, high, *steps = (_number(field, word, whole) for word in words)
    if not low < high:
        raise UserError(f"--space: the range {text} of {field} is empty: {words[0]} is not below {words[1]}")
    if log and low <= 0:
        raise UserError(f"--space: the logarithm of {words[0]} for {field}: a log range starts above 0")
    if not steps:
        return Range(field, low, high, whole, log)
    step = int(steps[0])
    if not whole or not 0 < step <= high - low:
        raise UserError(
            f"--space: steps of {words[2]} for {field}: they are for whole numbers, from 1 to HIGH - LOW"
        )
    return Range(field, low, high - (high - low) % step, whole, step=step)


def _number(field: str, word: str, whole: bool) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (whole and number != int(number)):
        raise UserError(f"--space: {word!r} is no {'whole ' if whole else ''}number for {field}")
    return int(number) if whole else number


def flags_for(values: Mapping[str, Value]) -> list[str]:
    """The arguments of `wn-rl train` that give fields these values.

    >>> flags_for({"learning.clip_rewards": "false", "learning.batch_size": 32})
    ['--learning.no-clip-rewards', '--learning.batch-size', '32']
    """
    fields = dict(_fields(Config))
    return [flag for field, value in values.items() for flag in _flag(field, fields[field], value)]


def _flag(field: str, kind: Any, value: Value) -> list[str]:
    part, dot, name = field.replace("_", "-").rpartition(".")
    if kind is bool:
        return [f"--{part}{dot}{_SWITCH[str(value).lower()]}{name}"]
    text = "None" if _may_be_none(kind) and str(value).lower() == "none" else str(value)
    return [f"--{part}{dot}{name}", text]


def _may_be_none(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and types.NoneType in typing.get_args(kind)


def ends(dimension: Dimension) -> tuple[Value, ...]:
    """The values that stand for all: every one of a choice, the first and the last of a range."""
    if isinstance(dimension, Choice):
        return dimension.values
    return dimension.low, dimension.high


def as_text(dimension: Dimension) -> str:
    """A dimension as it could be typed.

    >>> as_text(parse_space(["learning-rate=log:1e-5:1e-2"])[0])
    'optimizer.learning_rate=log:1e-05:0.01'
    """
    if isinstance(dimension, Choice):
        return f"{dimension.field}={','.join(dimension.values)}"
    numbers = [dimension.low, dimension.high, *([dimension.step] if dimension.step else [])]
    return f"{dimension.field}={'log:' if dimension.log else ''}{':'.join(map(str, numbers))}"


def as_wandb_parameter(dimension: Dimension) -> tuple[str, dict[str, Any]]:
    """The name and the values of a dimension in a sweep of W&B.

    Raises:
        UserError: it is a switch, which W&B's agents cannot set both ways.
    """
    name = dimension.field.replace("_", "-")
    if isinstance(dimension, Choice):
        if dict(_fields(Config))[dimension.field] is bool:
            raise UserError(f"--wandb-sweep: an agent cannot set the switch {dimension.field}: leave it out")
        return name, {"values": list(dimension.values)}
    if dimension.step:
        return name, {"values": list(range(int(dimension.low), int(dimension.high) + 1, dimension.step))}
    if dimension.whole:
        distribution = "q_log_uniform_values" if dimension.log else "int_uniform"
    else:
        distribution = "log_uniform_values" if dimension.log else "uniform"
    return name, {"distribution": distribution, "min": dimension.low, "max": dimension.high}
