"""Environment suites: Atari, MinAtar, Gymnasium's classic control, any Gymnasium environment. No torch here.

A new suite is one file with `games` and `make`, and one line in `wn_rl.registry.SUITES`.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wn_rl.envs import atari, classic, gymnasium_lanes, minatar
from wn_rl.envs.atari_vector import AtariVector
from wn_rl.envs.base import Environments, Settings
from wn_rl.envs.gymnasium_lanes import Description, GymnasiumLanes
from wn_rl.envs.gymnasium_processes import GymnasiumProcesses
from wn_rl.registry import SUITES

__all__ = ["SUITES", "Suite", "games", "make", "normalize_game"]


@dataclass(frozen=True)
class Suite:
    """Where games come from.

    pixels: whether screens are resized, and emulators may run in threads. gymnasium: whether lanes may run in
    processes. full_name: a game's own name, where `games` does not list all; ValueError if there is none.
    missing: what to install before its games can be played, or nothing.
    """

    games: Callable[[], list[str]]
    make: Callable[[str, Settings], Environments]
    pixels: bool = False
    gymnasium: bool = False
    full_name: Callable[[str], str] | None = None
    missing: Callable[[], str] = str  # which gives ""


def _make_atari(game: str, settings: Settings) -> Environments:
    """One lane runs faster from Python, several in the C++ class."""
    return atari.make(game, settings) if settings.num_envs == 1 else AtariVector(game, settings)


def _make_gymnasium(description: Description, settings: Settings) -> Environments:
    """Lanes in this process, which is faster, or in processes of their own, for slow environments."""
    make_lanes = GymnasiumProcesses if settings.processes else GymnasiumLanes
    return make_lanes(description, settings)


ATARI = Suite(atari.games, _make_atari, pixels=True)
MINATAR = Suite(minatar.games, minatar.make, missing=minatar.missing)
CLASSIC = Suite(
    classic.games,
    lambda game, settings: _make_gymnasium(classic.describe(game), settings),
    gymnasium=True,
)
GYMNASIUM = Suite(
    gymnasium_lanes.games,
    lambda env_id, settings: _make_gymnasium(gymnasium_lanes.describe(env_id), settings),
    gymnasium=True,
    full_name=gymnasium_lanes.full_name,
)


def games(suite: str) -> list[str]:
    """The names of the suite's games, sorted; of gymnasium, some to choose from. ValueError: an unknown suite."""
    return _suite(suite).games()


def normalize_game(suite: str, game: str) -> str:
    """The suite's own name of a game: `SpaceInvaders` and `ALE/SpaceInvaders-v5` give space_invaders.

    The suite gymnasium takes any registered id, of which it adds the version, and `module:id`.

    Raises:
        ValueError: there is no such suite or game; the message names the nearest ones.
    """
    full_name = _suite(suite).full_name
    if full_name is not None:
        return full_name(game)
    names = {_squash(name): name for name in games(suite)}
    if _squash(game) not in names:
        raise ValueError(f"unknown {suite} game {game!r}; the nearest names are {_nearest(game, names.values())}")
    return names[_squash(game)]


def make(
    suite: str,
    game: str,
    *,
    num_envs: int,
    seed: int,
    life_loss_terminates: bool,
    max_episode_frames: int,
    resize: str = "area",
    num_threads: int = 0,
    processes: bool = False,
) -> Environments:
    """Lanes of a game. What lane i shows depends on the seed and i, not on the number of lanes or threads.

    The exception: one lane of Atari has another emulator, and so other no-ops, than lane 0 of several.

    Args:
        suite: a name in SUITES.
        game: a name that `normalize_game` knows.
        num_envs: lanes E.
        seed: decides all that is random.
        life_loss_terminates: whether the discount is 0 at a lost life too, in games that have lives.
        max_episode_frames: emulator frames after which an episode is cut, with discount 1.
        resize: area, or bilinear as in the older codes (one lane of Atari).
        num_threads: threads of several Atari lanes, 0 for one a core; one lane always has one.
        processes: whether each lane of a Gymnasium environment runs in a process of its own.

    Raises:
        ValueError: a name is unknown, a value cannot be, or would have no effect.
    """
    settings = Settings(num_envs, seed, life_loss_terminates, max_episode_frames, resize, num_threads, processes)
    _validate(suite, settings)
    return _suite(suite).make(normalize_game(suite, game), settings)


def _validate(suite: str, settings: Settings) -> None:
    smallest = {"num_envs": 1, "seed": 0, "max_episode_frames": 1, "num_threads": 0}
    for name, least in smallest.items():
        if getattr(settings, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(settings, name)}")
    if settings.resize not in atari.RESIZES:
        raise ValueError(f"resize must be one of {', '.join(atari.RESIZES)}, got {settings.resize!r}")
    if not _suite(suite).pixels:
        if settings.resize != "area":
            raise ValueError(f"resize {settings.resize!r} has no effect in the suite {suite}")
        if settings.num_threads != 0:
            raise ValueError(
                f"num_threads {settings.num_threads} (--environment.emulator-threads) has no effect in the "
                f"suite {suite}"
            )
    if settings.processes and not _suite(suite).gymnasium:
        raise ValueError(f"processes are for Gymnasium environments, not for the suite {suite}")


def _suite(name: str) -> Suite:
    suite: Suite = SUITES[name]
    return suite


def _squash(name: str) -> str:
    """Lower-case letters and digits alone, without what Gymnasium ids add: ALE/, NoFrameskip, -v5."""
    name = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name.split("/")[-1])
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _nearest(name: str, names: Iterable[str]) -> str:
    squashed = {_squash(candidate): candidate for candidate in names}
    closest = difflib.get_close_matches(_squash(name), squashed, n=3, cutoff=0.0)
    return ", ".join(squashed[match] for match in closest)
