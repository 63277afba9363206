"""Every name that a setting may take, and what it stands for: layers, networks, games, trackers and presets.

A program adds a name of its own with one assignment, `NETWORKS["tiny"] = make_tiny`; from then on a Config, a flag
and a saved run may use it. In a module of its own, this serves every command: `wn-rl --import MODULE train ...`.
"""

import difflib
import importlib
import importlib.util
import os
import shlex
from collections import UserDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

Entry = TypeVar("Entry")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the choice that it is near to, or nothing.

    >>> did_you_mean("wandbb", ["jsonl", "wandb"]), did_you_mean("x", ["jsonl", "wandb"])
    ('; did you mean wandb?', '')
    """
    near = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


class UnknownNameError(ValueError, KeyError):
    """A registry does not have this name."""

    __str__ = ValueError.__str__  # that of KeyError puts the message in quotes


class _Place(str):
    """Where an entry is that is not imported yet: "module:attribute"."""


class Registry(UserDict[str, Entry]):
    """Names, and what they stand for.

    Ours are given as places and are imported when they are first asked for: listing the names imports neither
    torch nor an emulator.
    """

    __hash__ = object.__hash__  # as a part of types, which are hashed
    __eq__ = object.__eq__

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        super().__init__()
        self.kind = kind
        self.data = {name: cast(Any, _Place(place)) for name, place in places.items()}

    def __getitem__(self, name: str) -> Entry:
        """What the name stands for. UnknownNameError: the registry does not have it."""
        if name not in self.data:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}: choose from {', '.join(self)}{did_you_mean(str(name), self)}"
            )
        if isinstance(place := self.data[name], _Place):
            module, _, attribute = place.partition(":")
            self.data[name] = getattr(importlib.import_module(module), attribute)
        return self.data[name]


PARAMETERIZATIONS: Registry[Any] = Registry(
    "parameterization",
    {
        name: f"wn_rl.nn.layers:{name.upper()}"
        for name in (
            *("normal", "normal_fixed_gain", "batch_norm", "weight_norm", "weight_norm_mean_only_bn"),
            *("layer_norm", "projected", "projected_layer_norm", "projected_batch_norm", "spectral_norm"),
        )
    },
)
"""`wn_rl.nn.Parameterization`: how a layer's weight is made of its parameters."""

NETWORKS: Registry[Any] = Registry(
    "network", {name: f"wn_rl.nn.networks:{name}" for name in ("nature_cnn", "minatar_cnn", "mlp")}
)
"""Functions (frame_shape, stack, num_actions, scale, layers) -> nn.Sequential, as `wn_rl.nn.networks.mlp`."""

OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    {
        "adamax": "wn_rl.nn.update.optimizers:Adamax",
        "adamax_authors": "wn_rl.nn.update.optimizers:AuthorsAdamax",
        "rmsprop_centered": "wn_rl.nn.update.optimizers:CenteredRMSProp",
    },
)
"""Functions (parameters, learning_rate) -> torch.optim.Optimizer."""

SUITES: Registry[Any] = Registry(
    "suite", {name: f"wn_rl.envs:{name.upper()}" for name in ("atari", "minatar", "classic", "gymnasium")}
)
"""`wn_rl.envs.Suite`: where games come from."""

TRACKERS: Registry[Any] = Registry(
    "tracker",
    {name: f"wn_rl.run.tracking:{name}_tracker" for name in ("jsonl", "console", "wandb", "tensorboard")},
)
"""Functions (RunInfo) -> Tracker: where metrics go."""

_PRESETS = (
    *("paper", "nature", "dopamine", "fast", "laptop"),
    *("minatar", "minatar_published", "classic", "vectors", "images", "grids"),
)
PRESETS: Registry[Any] = Registry("preset", {name: f"wn_rl.presets:{name}" for name in _PRESETS})
"""Functions (game) -> Config: starting points."""


def register_with_gymnasium() -> None:
    """Give Gymnasium our games, e.g. wn_rl/Atari-Breakout-v0. Their names are those of files: none is imported."""
    from gymnasium import register

    for title, package, files in (("Atari", "ale_py", "roms/*.bin"), ("MinAtar", "minatar", "environments/*.py")):
        place = importlib.util.find_spec(package)
        for file in sorted(Path(place.origin).parent.glob(files)) if place and place.origin else ():
            if file.stem not in ("combat", "joust", "maze_craze", "warlords", "__init__"):  # four need two players
                env_id = f"wn_rl/{title}-{file.stem.title().replace('_', '')}-v0"
                game = {"suite": title.lower(), "game": file.stem}
                register(env_id, "wn_rl.envs.as_gymnasium:GameEnv", kwargs=game)


IMPORTS = "WN_RL_IMPORT"
"""The environment variable that names the modules of --import, with commas, to the processes of comparisons."""


def import_extensions(modules: Iterable[str]) -> None:
    """Import modules that add to the registries, here and in every process of wn_rl started from here.

    Raises:
        ImportError: there is no such module.
    """
    unique = dict.fromkeys([*_imported(), *modules])
    for module in unique:
        importlib.import_module(module)
    if unique:
        os.environ[IMPORTS] = ",".join(unique)


def _imported() -> list[str]:
    return list(filter(None, os.environ.get(IMPORTS, "").split(",")))


def import_flags() -> list[str]:
    """The flags of `wn-rl` that import the same modules elsewhere."""
    return [flag for module in _imported() for flag in ("--import", module)]


def command_line(*words: str) -> str:
    """A command of `wn-rl` as a shell takes it, which imports the same modules.

    >>> command_line("resume", "my runs/1")
    "wn-rl resume 'my runs/1'"
    """
    return shlex.join(["wn-rl", *import_flags(), *words])
