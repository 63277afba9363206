"""What the commands share: opening a network, and saying that a test goes on."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from wn_rl.config import Config, from_json
from wn_rl.errors import UserError, say
from wn_rl.runs import RunFolder

if TYPE_CHECKING:
    from torch import nn

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


def open_network(
    path: Path, which: Literal["best", "latest"] | None, device: str
) -> tuple[RunFolder, Config, "nn.Module", str]:
    """The folder of a run or of an exported agent, its config, its network and what to call that.

    which: of a run's networks; None: the best. An agent has only one.

    Raises:
        UserError: the folder holds neither, its files are damaged, the agent says no game or one whose module is
            not imported yet, or which is given for an agent.
    """
    from wn_rl.agents.training import load_run
    from wn_rl.export.agent import WEIGHTS, read_agent
    from wn_rl.machine import resolve_device

    folder = RunFolder(path)
    if not (path / WEIGHTS).exists():
        run = load_run(path, which or "best", device)
        return folder, run.config, run.network, run.name
    agent = read_agent(path)
    if which is not None:
        raise UserError(f"--network is for a run, and {path} is an exported agent, which has one network")
    if "config" not in agent.run:
        raise UserError(f"{path} does not say which game it plays: no run of wn-rl trained it")
    config = from_json(agent.run["config"])
    module = str(config.game).rpartition(":")[0]
    if module and module not in sys.modules:  # a user may import what a file names, the file alone may not
        raise UserError(f"the game of {path} needs a module; if you trust it, use wn-rl --import {module} ...")
    return folder, config, agent.network.to(resolve_device(device)), agent.name


def progress(policy: str) -> Callable[[], None]:
    """A function to call at every step of a test: it says every ten seconds that it goes on."""
    started = said = time.monotonic()
    steps = 0

    def tick() -> None:
        nonlocal said, steps
        steps += 1
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"testing the {policy}: {steps:,} rows of steps in {said - started:.0f} s")

    return tick
