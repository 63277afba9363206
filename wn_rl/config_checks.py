"""Which values a setting may take, by the type of its field."""

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from wn_rl.registry import Registry, UnknownNameError


@dataclass(frozen=True)
class Bound:
    """Which numbers a setting may be. words: what an error says after "must be"."""

    words: str
    allows: Callable[[float], bool] = field(repr=False)


_AT_LEAST_0 = Bound("at least 0", lambda number: number >= 0)
_AT_LEAST_1 = Bound("at least 1", lambda number: number >= 1)

Count = Annotated[int, _AT_LEAST_1]
CountOrNone = Annotated[int | None, _AT_LEAST_1]
CountOrZero = Annotated[int, _AT_LEAST_0]
MoreThanOne = Annotated[int, Bound("at least 2", lambda number: number >= 2)]
Seed = Annotated[int, _AT_LEAST_0, Bound("below 2**31", lambda number: number < 2**31)]
# More lanes are a mistake that would build environments for hours, and more threads may end the process.
MAX_ENVS = 4096
Lanes = Annotated[int, _AT_LEAST_1, Bound(f"at most {MAX_ENVS}", lambda number: number <= MAX_ENVS)]
Threads = Annotated[int, _AT_LEAST_0, Bound("at most 1024", lambda number: number <= 1024)]
Fraction = Annotated[float, Bound("between 0 and 1", lambda number: 0 <= number <= 1)]
ShareOrNone = Annotated[float | None, Bound("greater than 0 and below 1", lambda number: 0 < number < 1)]
NotNegativeOrNone = Annotated[float | None, Bound("at least 0", lambda number: 0 <= number < math.inf)]
PositiveOrNone = Annotated[float | None, Bound("greater than 0", lambda number: 0 < number < math.inf)]

# What True and False are not, although Python counts them among the integers.
_NUMBERS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}


def check_values(part: Any, prefix: str = "") -> None:
    """ValueError on the first invalid value of a dataclass of settings, in words of the flag that sets it.

    Fields whose type is not Annotated may have any value.
    """
    for name, hint in typing.get_type_hints(type(part), include_extras=True).items():
        value = getattr(part, name)
        if dataclasses.is_dataclass(value):
            check_values(value, f"{prefix}{name}.")
        elif typing.get_origin(hint) is Annotated:
            kind, *extras = typing.get_args(hint)
            members = typing.get_args(kind) or (kind,)
            if value is not None or type(None) not in members:
                _check_value(f"--{prefix}{name.replace('_', '-')}", value, kind, members[0], extras)


def _check_value(flag: str, value: Any, kind: Any, member: Any, extras: list[Any]) -> None:
    """ValueError if a value is not of its field's type or bounds, UnknownNameError if its registry lacks it."""
    if member is bool and not isinstance(value, bool):
        raise ValueError(f"{flag} must be True or False, got {value!r}")
    types, words = _NUMBERS.get(member, ((object,), ""))
    if words and (isinstance(value, bool) or not isinstance(value, types)):
        raise ValueError(f"{flag} must be {words}, got {value!r}")
    for bound in extras:
        if isinstance(bound, Bound) and not bound.allows(value):
            raise ValueError(f"{flag} must be {bound.words}, got {value}")
    if typing.get_origin(kind) is tuple and not isinstance(value, tuple):
        raise ValueError(f"{flag} must be a tuple of names, got {value!r}")
    names = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    choices = next((tuple(extra) for extra in extras if isinstance(extra, Registry)), names)
    for name in value if isinstance(value, tuple) else (value,):
        if choices and name not in choices:
            raise UnknownNameError(f"{flag} must be one of {', '.join(choices)}, got {name!r}")
