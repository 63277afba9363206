"""For programs that add to the registries (PARAMETERIZATIONS, NETWORKS, SUITES, TRACKERS) from outside wn_rl.

NETWORKS["tiny"] = tiny
allow("network.name", "tiny")                      # a Config may name it now

In a module of its own, this serves every command: `wn-rl --import MODULE train ...`.
"""

import dataclasses
import typing
from typing import Any, Literal

from wn_rl import config


def allow(field: str, name: str) -> None:
    """Let a field of Config that takes one of several names take one more, in Python and as a flag of wn_rl.cli.

    field: as its flag is called: parameterization, suite, track, network.name, ...

    Raises:
        ValueError: there is no such field, or it takes no names.
    """
    part: Any = config.Config
    *outer, last = field.replace("-", "_").split(".")
    for attribute in outer:
        part = _hints(part).get(attribute)
    hint = _hints(part).get(last)
    choices, is_list = typing.get_args(hint), typing.get_origin(hint) is tuple
    if is_list:
        choices = typing.get_args(choices[0])
    if not choices or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"no field of Config takes names under {field!r}")
    extended: Any = Literal[(*choices, name)]  # a name that is there already is not repeated
    part.__annotations__[last] = tuple[extended, ...] if is_list else extended
    if last in config.ALIASES:
        setattr(config, config.ALIASES[last], extended)  # for the flags of commands that are read from now on


def _hints(part: Any) -> dict[str, Any]:
    return typing.get_type_hints(part) if dataclasses.is_dataclass(part) else {}
