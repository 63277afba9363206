"""`wn-rl games`: list the games of each suite."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wn_rl.flags import parse_flags


@dataclass(frozen=True)
class Games:
    """List the games of each suite."""

    suite: Literal["atari", "minatar", "classic"] | None = None
    """One suite only."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl games`."""
    options = parse_flags(Games, arguments)
    from wn_rl import envs

    for suite in [options.suite] if options.suite else envs.SUITES:
        print(f"{suite}: {' '.join(envs.games(suite))}")
    return 0
