"""`wn-rl train`: train an agent on a game."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.commands._shared import parse_flags, require_free
from wn_rl.config import Config
from wn_rl.errors import in_one_line
from wn_rl.presets import default_preset, preset_for_frames
from wn_rl.registry import PRESETS, SUITES, import_extensions
from wn_rl.run.folder import RunFolder, default_name


@dataclass(frozen=True)
class Train:
    """Train an agent on a game."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    env_id: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Instead of GAME: an environment registered with Gymnasium, or MODULE:ID for one that importing MODULE
    registers. Its observations choose the preset: vectors, images or grids."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config", metavar="RUN")] = None
    """Take every default from this run instead of a preset: its folder, or a file like its config.json."""
    run_dir: Path | None = None
    """Folder of the run; it must be new or empty. None: one in runs/ named after time, game and settings."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl train`."""
    options = read_flags(arguments)
    from wn_rl.run.training import train

    config = options.config
    name = config.run_name or default_name(config.suite, config.game, config.parameterization, config.seed)
    return train(config, options.run_dir or Path("runs") / name, command=["wn-rl", *sys.argv[1:]]).exit_code


def read_flags(arguments: Sequence[str]) -> Train:
    """The flags of `wn-rl train`: the preset that they ask for, with their changes and the game's full name.

    Raises:
        ValueError: they are invalid.
    """
    default = _defaults_of(arguments)
    options: Train = parse_flags(Train, arguments, default=Train(default))
    from wn_rl import envs

    if list(arguments).count("--track") > 1:
        raise ValueError("--track is given twice: name every place after one --track")
    config = options.config
    if options.env_id is not None and (config.suite, config.game) != ("gymnasium", options.env_id):
        raise ValueError("--env-id is a game of the suite gymnasium: give it without GAME and --suite")
    if config.suite == "gymnasium" and (options.env_id or config.game != default.game):  # no file imports
        _import_module_of(config.game)
    game = envs.normalize_game(config.suite, config.game)
    return dataclasses.replace(options, config=dataclasses.replace(config, game=game))


def _defaults_of(arguments: Sequence[str]) -> Config:
    """The preset or the run that the flags ask for: it decides the defaults of all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (
        ["--config"],
        ["--preset"],
        ["--suite"],
        ["--device"],
        ["--env-id", "--env_id"],
        ["--environment.channels"],
    ):
        parser.add_argument(*names, nargs="?")  # a missing value is tyro's to refuse
    chosen, _ = parser.parse_known_args([word for word in arguments if word not in ("-h", "--help")])
    channels = vars(chosen)["environment.channels"] or "auto"
    if chosen.config is not None:
        require_free(arguments, ["preset"], "--config")
        folder = RunFolder(Path(chosen.config))
        folder.config_file = folder.config_file if folder.path.is_dir() else folder.path
        given = {"suite": "gymnasium", "game": chosen.env_id} if chosen.env_id else {}
        return dataclasses.replace(folder.read_settings()[1], run_name=None, group=None, **given)
    if chosen.env_id is not None:
        preset = chosen.preset or _preset_for_environment(chosen.env_id, channels)
        return dataclasses.replace(_preset(preset, chosen.env_id), suite="gymnasium")
    if chosen.preset is not None:
        return _preset(chosen.preset, tyro.MISSING)
    suite = chosen.suite or "atari"
    if suite == "gymnasium":
        game = parse_flags(Train, arguments, default=Train(_preset("vectors", tyro.MISSING))).config.game
        return _preset(_preset_for_environment(game, channels), tyro.MISSING)
    name = default_preset(suite, suite == "atari" and chosen.device != "cpu" and _has_cuda())
    if name not in PRESETS and suite in SUITES:
        raise ValueError(
            f"the suite {suite} has no preset of its own: give --preset, "
            "classic for vectors, minatar for small grids or laptop for images"
        )
    return _preset(name, tyro.MISSING)


def _import_module_of(game: Any) -> None:
    """Import the module that a flag names in MODULE:ID. ValueError: it does not exist."""
    module = str(game).rpartition(":")[0]
    try:
        import_extensions([module] if module else [])
    except ImportError as error:
        raise ValueError(f"unknown gymnasium environment {game!r}: {in_one_line(error)}") from error


def _preset_for_environment(game: str, channels: str) -> str:
    """By its observations. ValueError: the environment is unknown or cannot be trained on."""
    from wn_rl.envs import gymnasium_lanes, normalize_game

    _import_module_of(game)
    return preset_for_frames(
        gymnasium_lanes.describe(normalize_game("gymnasium", game), channels).spec.frame_shape
    )


def _preset(name: str, game: str) -> Config:
    preset: Config = PRESETS.get(name, PRESETS["paper"])(game)
    return preset  # an unknown name is tyro's to refuse


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
