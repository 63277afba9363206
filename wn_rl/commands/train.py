"""`wn-rl train`: train an agent on a game."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wn_rl.commands._shared import parse_flags, preset_of
from wn_rl.config import Config
from wn_rl.registry import PRESETS
from wn_rl.run.folder import default_name


@dataclass(frozen=True)
class Train:
    """Train an agent on a game."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    env_id: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Instead of GAME: an environment registered with Gymnasium, or MODULE:ID for one that importing MODULE
    registers. Its observations choose the preset: vectors, images or grids."""
    run_dir: Path | None = None
    """Folder of the run; it must be new or empty. None: one in runs/ named after time, game and settings."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl train`."""
    options = parse_flags(Train, arguments, default=Train(_preset_of(arguments)))
    from wn_rl import envs
    from wn_rl.run.training import train

    if list(arguments).count("--track") > 1:
        raise ValueError("--track is given twice: name every place after one --track")
    config = options.config
    if options.env_id is not None and (config.suite, config.game) != ("gymnasium", options.env_id):
        raise ValueError("--env-id is a game of the suite gymnasium: give it without GAME and --suite")
    game = envs.normalize_game(config.suite, config.game)
    name = config.run_name or default_name(config.suite, game, config.parameterization, config.seed)
    config = dataclasses.replace(config, run_name=name)
    return train(config, options.run_dir or Path("runs") / name, command=["wn-rl", *sys.argv[1:]]).exit_code


def _preset_of(arguments: Sequence[str]) -> Config:
    """The preset that the flags ask for: it decides the defaults of all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--suite", "--device", "--env-id"):
        parser.add_argument(name, nargs="?")  # a missing value is tyro's to refuse
    hyphenated = [_with_hyphens(argument) for argument in arguments if argument not in ("-h", "--help")]
    chosen, _ = parser.parse_known_args(hyphenated)
    if chosen.env_id is not None:
        preset = chosen.preset or preset_of("gymnasium", chosen.env_id, "cpu")
        return dataclasses.replace(_preset(preset, chosen.env_id), suite="gymnasium")
    suite = chosen.suite or "atari"
    game = tyro.MISSING
    if chosen.preset is None and suite == "gymnasium":
        game = parse_flags(Train, arguments, default=Train(_preset("vectors", game))).config.game
    return _preset(chosen.preset or preset_of(suite, game, chosen.device or "auto"), tyro.MISSING)


def _with_hyphens(argument: str) -> str:
    """A flag as its help has it: tyro takes --env_id for --env-id."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def _preset(name: str, game: str) -> Config:
    preset: Config = PRESETS.get(name, PRESETS["paper"])(game)
    return preset  # an unknown name is tyro's to refuse
