"""Modules of the user's that add layers, networks and more (see wn_rl.api) to every command."""

import importlib
import os
import shlex
from collections.abc import Iterable

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
