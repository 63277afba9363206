"""What the commands share: opening a network, and saying that a test goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from wn_rl.config import Config, from_json
from wn_rl.errors import UserError, say
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from torch import nn

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


def open_network(
    path: Path, which: Literal["best", "latest"] | None, device: str
) -> tuple[RunFolder, Config, "nn.Module", str]:
    """The folder of a run or of an exported agent, its config, its network and what to call that.

    which: of a run's networks; None: the best. An agent has one alone.

    Raises:
        UserError: there is neither, its files are damaged, no run of ours made the agent, or which is of an agent.
    """
    from wn_rl.export.agent import is_exported, load_exported
    from wn_rl.machine import resolve_device
    from wn_rl.run.training import load_run

    folder = RunFolder(path)
    if not is_exported(folder.read_config()):
        run = load_run(path, which or "best", device)
        return folder, run.config, run.network, run.name
    if which is not None:
        raise UserError(f"--network is of a run, and {path} is an exported agent, which has one network")
    agent = load_exported(path)
    if "config" not in agent.run:
        raise UserError(f"{path} does not say which game it plays: no run of wn-rl made it")
    return folder, from_json(agent.run["config"]), agent.network.to(resolve_device(device)), agent.name


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
