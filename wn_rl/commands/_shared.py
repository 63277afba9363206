"""Dataclasses from command-line flags, by tyro; what is wrong with them is said in one line."""

import contextlib
import io
import itertools
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wn_rl.config import Config, SuiteName, from_json
from wn_rl.errors import UserError, say
from wn_rl.presets import default_preset, preset_for_frames
from wn_rl.registry import PRESETS, SUITES
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from torch import nn


_SHOWN = 3  # of the flags that may have been meant
# tyro's words on a value that is of no member of a union, from which it goes on with the error of each.
_OPTIONAL = re.compile(r"no type matching \{None\}\|(\S+) could be instantiated from \['(.*?)'\]\. Got errors:.*")


def parse_flags(command: type[Any], arguments: Sequence[str], **kwargs: Any) -> Any:
    """The command's flags. What tyro would say in a box is raised as a ValueError of one line."""
    prog = f"wn-rl {command.__name__.lower()}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command, prog=prog, args=arguments, **kwargs)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_text_of_box(complaint.getvalue())} (see {prog} --help)") from None


def _text_of_box(box: str) -> str:
    """Of what tyro drew in a box (framed, or titled without UTF-8) the first paragraph, and flags it guessed."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    framed = any(line.startswith("╭") for line in lines)
    lines = [line for line in lines if line and line[0] not in "╭╰"]
    if not framed:
        lines = lines[2:]  # a title and a rule
    paragraph = " ".join(itertools.takewhile(lambda line: set(line) not in ({"─"}, {"-"}), lines))
    paragraph = _OPTIONAL.sub(r"'\2' is neither None nor \1", paragraph)
    _, _, guessed = " ".join(lines).partition("Perhaps you meant:")
    flags = [flag for flag in dict.fromkeys(re.findall(r"--[a-z][\w.-]*", guessed)) if flag != "--help"]
    return f"{paragraph}; did you mean {' or '.join(flags[:_SHOWN])}?" if flags else paragraph


def suite_of(suite: SuiteName | None, preset: str | None) -> str:
    """The suite that was named, else that of the preset, else Atari."""
    return suite or (PRESETS[preset]("any").suite if preset else "atari")


def preset_of(suite: str, game: str, device: str) -> str:
    """By the suite, and by what there is: a CUDA device, and what a Gymnasium environment shows.

    Raises:
        ValueError: the environment is unknown or cannot be trained on, or a suite of the user's has no preset.
    """
    if suite == "gymnasium":
        from wn_rl.envs import gymnasium_lanes

        return preset_for_frames(gymnasium_lanes.describe(game).spec.frame_shape)
    name = default_preset(suite, suite == "atari" and _has_cuda(device))
    if name not in PRESETS and suite in SUITES:
        raise ValueError(
            f"the suite {suite} has no preset of its own: give --preset, "
            "classic for vectors, minatar for small grids or laptop for images"
        )
    return name


def _has_cuda(device: str) -> bool:
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


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
    from wn_rl.export.agent import WEIGHTS, read_agent
    from wn_rl.machine import resolve_device
    from wn_rl.run.loading import load_run

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
