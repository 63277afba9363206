"""Environment suites: Atari, MinAtar, Gymnasium's classic control, any Gymnasium environment. No torch here.

A new suite is one file with `games` and `make`, and one line in `wn_rl.registry.SUITES`.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from wn_rl.envs import atari, gymnasium_lanes, minatar
from wn_rl.envs.base import Environments, Rules
from wn_rl.envs.gymnasium_lanes import Description, GymnasiumLane
from wn_rl.envs.processes import make_lanes
from wn_rl.registry import SUITES, did_you_mean

__all__ = ["SUITES", "Suite", "games", "make", "normalize_game"]


@dataclass(frozen=True)
class Suite:
    """Where games come from.

    pixels: whether screens are resized. sticky: the probability with which Gymnasium's ids of these games repeat
    an action, v4 excepted; None: the rules of actions have no effect. full_name: a game's own name, where `games`
    does not list all; ValueError: there is no such game.
    """

    games: Callable[[], list[str]]
    make: Callable[[str, Rules, int, int], Environments]
    pixels: bool = False
    sticky: float | None = None
    full_name: Callable[[str], str] | None = None


def _make_gymnasium(description: Description, rules: Rules, num_envs: int, seed: int) -> Environments:
    return make_lanes(lambda _: GymnasiumLane(description, rules.max_episode_frames), rules, num_envs, seed)


ATARI = Suite(atari.games, atari.make, pixels=True, sticky=0.25)
MINATAR = Suite(minatar.games, minatar.make, sticky=0.1)
CLASSIC = Suite(
    lambda: sorted(gymnasium_lanes.CLASSIC),
    lambda game, *rest: _make_gymnasium(gymnasium_lanes.describe_classic(game), *rest),
)
GYMNASIUM = Suite(
    gymnasium_lanes.games,
    lambda env_id, *rest: _make_gymnasium(gymnasium_lanes.describe(env_id, rest[0].channels), *rest),
    full_name=gymnasium_lanes.full_name,
)


def games(suite: str) -> list[str]:
    """The names of the suite's games, sorted; of gymnasium, some to choose from. ValueError: an unknown suite."""
    return _suite(suite).games()


def normalize_game(suite: str, game: str) -> str:
    """The suite's own name of a game: `SpaceInvaders` and `SpaceInvadersNoFrameskip-v4` give space_invaders.

    The suite gymnasium takes any registered id, of which it adds the version, and `module:id`.

    Raises:
        ValueError: there is no such suite or game; the message names the nearest one. Or the name is that of a
            game with sticky actions elsewhere, e.g. `ALE/SpaceInvaders-v5`: here a rule says so.
    """
    try:
        name = _own_name(suite, game)
    except ValueError as error:
        raise ValueError(f"{error}{_where_else(suite, game)}") from error
    sticky, version = _suite(suite).sticky, re.search(r"-v\d+$", game)
    if sticky is not None and version and version[0] != "-v4":
        flag = f"--environment.repeat-action-probability {sticky}"
        raise ValueError(
            f"{game} has sticky actions elsewhere: give {name} {flag}, or {name} for a game without them"
        )
    return name


def _own_name(suite: str, game: str) -> str:
    """As `normalize_game`, but the message names nothing else."""
    full_name = _suite(suite).full_name
    if full_name is not None:
        return full_name(game)
    names = {_squash(name): name for name in games(suite)}
    if _squash(game) not in names:
        raise ValueError(f"unknown {suite} game {game!r}")
    return names[_squash(game)]


def _where_else(suite: str, game: str) -> str:
    """The end of a message about an unknown game: the flags that have it, else the nearest name."""
    found = []
    if ":" in game:  # its module would be imported
        return ""
    for other in SUITES:
        with contextlib.suppress(ValueError):
            name = _own_name(other, game)
            found.append(f"--env-id {name}" if other == "gymnasium" else f"{name} --suite {other}")
    if found:
        return f"; give {' or '.join(found)}"
    for other in (suite, *SUITES):
        if meant := did_you_mean(game, games(other)):
            return meant if other == suite else f"{meant[:-1]} --suite {other}?"
    return ""


def make(suite: str, game: str, rules: Rules, *, num_envs: int, seed: int) -> Environments:
    """Lanes of a game. What lane i shows depends on the seed and i, not on the number of lanes or processes.

    Args:
        suite: a name in SUITES.
        game: a name that `normalize_game` knows.
        rules: how it is played: `wn_rl.config.EnvironmentConfig`.
        num_envs: lanes E.
        seed: decides all that is random.

    Raises:
        ValueError: a name is unknown, or a rule is invalid or would have no effect.
    """
    for name, number, minimum in (
        ("num_envs", num_envs, 1),
        ("seed", seed, 0),
        ("max_episode_frames", rules.max_episode_frames, 1),
        ("processes", rules.processes, 0),
    ):
        if number < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {number}")
    _require_effect(suite, rules)
    return _suite(suite).make(normalize_game(suite, game), rules, num_envs, seed)


def _require_effect(name: str, rules: Rules) -> None:
    """ValueError: the suite does not know a rule."""
    suite = _suite(name)
    for rule, choices in (("resize", list(atari.RESIZES)), ("channels", ["auto", "first", "last"])):
        if getattr(rules, rule) not in choices:
            raise ValueError(f"{rule} must be one of {', '.join(choices)}, got {getattr(rules, rule)!r}")
    for rule, default, has_effect in (
        ("resize", "area", suite.pixels),
        ("repeat_action_probability", 0, suite.sticky is not None),
        ("full_action_set", False, suite.sticky is not None),
        ("channels", "auto", suite.full_name is not None),
    ):
        value = getattr(rules, rule)
        if value != default and not has_effect:
            flag = f"--environment.{rule.replace('_', '-')}"
            raise ValueError(f"{flag} {value} has no effect in the suite {name}")


def _suite(name: str) -> Suite:
    suite: Suite = SUITES[name]
    return suite


def _squash(name: str) -> str:
    """Only lower-case letters and digits, without what Gymnasium ids add: ALE/, NoFrameskip, -v5."""
    name = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name.split("/")[-1])
    return re.sub(r"[^a-z0-9]", "", name.lower())
