"""Every name that a setting may take, and what it stands for: layers, networks, games, trackers and presets.

A program adds a name of its own with one assignment, `NETWORKS["tiny"] = make_tiny`; from then on a Config, a flag
and a saved run may use it. In a module of its own, this serves every command: `wn-rl --import MODULE train ...`.
"""

import difflib
import importlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

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


class Registry(MutableMapping[str, Entry]):
    """Names, and what they stand for.

    Ours are given as places, "module:attribute", and are imported when they are first asked for: to list the names
    takes no import of torch or of an emulator.
    """

    __hash__ = object.__hash__  # as a part of types, which are hashed
    __eq__ = object.__eq__

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self.kind = kind
        self._places = dict(places)
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        """What the name stands for. UnknownNameError: the registry does not have it."""
        if name not in self._places and name not in self._entries:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}: choose from {', '.join(self)}{did_you_mean(str(name), self)}"
            )
        if name not in self._entries:
            module, _, attribute = self._places[name].partition(":")
            self._entries[name] = getattr(importlib.import_module(module), attribute)
        return self._entries[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter({**self._places, **self._entries})

    def __len__(self) -> int:
        return sum(1 for _ in self)


PARAMETERIZATIONS: Registry[Any] = Registry(
    "parameterization",
    {
        "normal": "wn_rl.nn.layers:NORMAL",
        "batch_norm": "wn_rl.nn.layers:BATCH_NORM",
        "weight_norm": "wn_rl.nn.layers:WEIGHT_NORM",
        "weight_norm_mean_only_bn": "wn_rl.nn.layers:WEIGHT_NORM_MEAN_ONLY_BN",
    },
)
"""`wn_rl.nn.Parameterization`: how a layer's weight is made of its parameters."""

NETWORKS: Registry[Any] = Registry(
    "network",
    {name: f"wn_rl.nn.networks:{name}" for name in ("nature_cnn", "minatar_cnn", "mlp")},
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
    "suite",
    {
        "atari": "wn_rl.envs:ATARI",
        "minatar": "wn_rl.envs:MINATAR",
        "classic": "wn_rl.envs:CLASSIC",
        "gymnasium": "wn_rl.envs:GYMNASIUM",
    },
)
"""`wn_rl.envs.Suite`: where games come from."""

TRACKERS: Registry[Any] = Registry(
    "tracker",
    {name: f"wn_rl.run.tracking:{name}_tracker" for name in ("jsonl", "console", "wandb", "tensorboard")},
)
"""Functions (RunInfo) -> Tracker: where metrics go."""

PRESETS: Registry[Any] = Registry(
    "preset",
    {
        name: f"wn_rl.presets:{name}"
        for name in ("paper", "nature", "fast", "laptop", "minatar", "classic", "vectors", "images", "grids")
    },
)
"""Functions (game) -> Config: starting points."""

IMPORTS = "WN_RL_IMPORT"
"""The environment variable that names the modules of --import, with commas, to the processes of comparisons."""


def import_extensions(modules: Iterable[str]) -> None:
    """Import modules that add to the registries, here and in every process of wn_rl started from here.

    Raises:
        ImportError: there is no such module.
    """
    named = [*os.environ.get(IMPORTS, "").split(","), *modules]
    unique = [module for module in dict.fromkeys(named) if module]
    for module in unique:
        importlib.import_module(module)
    if unique:
        os.environ[IMPORTS] = ",".join(unique)


def import_flags() -> list[str]:
    """The flags of `wn-rl` that import the same modules elsewhere."""
    modules = os.environ.get(IMPORTS, "").split(",")
    return [flag for module in modules if module for flag in ("--import", module)]


def command_line(*words: str) -> str:
    """A command of `wn-rl` as a shell takes it, which imports the same modules.

    >>> command_line("resume", "my runs/1")
    "wn-rl resume 'my runs/1'"
    """
    return shlex.join(["wn-rl", *import_flags(), *words])
