"""`wn-rl games`: list the games of each suite."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from wn_rl.commands._shared import parse_flags
from wn_rl.config import SuiteName


@dataclass(frozen=True)
class Games:
    """List the games of each suite."""

    suite: SuiteName | None = None
    """One suite only. gymnasium: some to choose from; it takes any registered ID, and MODULE:ID."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl games`."""
    options = parse_flags(Games, arguments)
    from wn_rl import envs

    width = shutil.get_terminal_size((100, 24)).columns  # 100 without a terminal
    for suite in [options.suite] if options.suite else envs.SUITES:
        games = f"{suite}: {' '.join(envs.games(suite))}"
        print(textwrap.fill(games, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    return 0
