"""Dataclasses from command-line flags, by tyro; what is wrong with them is said in one line."""

import contextlib
import io
import itertools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wn_rl.config import Config, from_json
from wn_rl.config_checks import check_values
from wn_rl.errors import UserError, say
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from torch import nn

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]

# Flags of `wn-rl train` that do not fit many runs, each with a game and a folder of its own.
OF_ONE_RUN = ("env_id", "run_dir", "run_name")
_SHOWN = 3  # of the flags that may have been meant
# What tyro says of a value that fits no member of a union; the error of each member follows.
_OPTIONAL = re.compile(r"no type matching \{None\}\|(\S+) could be instantiated from \['(.*?)'\]\. Got errors:.*")


def parse_flags(command: type[Any], arguments: Sequence[str], **kwargs: Any) -> Any:
    """The command's flags; with return_unknown_args, beside those that it does not have.

    Raises:
        ValueError: tyro, or `check_values`, refuses them. What tyro would say in a box is in one line.
    """
    prog = f"wn-rl {command.__name__.lower()}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = tyro.cli(command, prog=prog, args=arguments, **kwargs)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_text_of_box(complaint.getvalue())} (see {prog} --help)") from None
    check_values(parsed[0] if isinstance(parsed, tuple) else parsed)
    return parsed


def _text_of_box(box: str) -> str:
    """Of what tyro drew in a box (framed, or titled without UTF-8) the first paragraph, and flags it guessed."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    is_framed = any(line.startswith("╭") for line in lines)
    lines = [line for line in lines if line and line[0] not in "╭╰"][0 if is_framed else 2 :]  # a title and a rule
    paragraph = " ".join(itertools.takewhile(lambda line: set(line) not in ({"─"}, {"-"}), lines))
    paragraph = _OPTIONAL.sub(r"'\2' is neither None nor \1", paragraph)
    _, _, guessed = " ".join(lines).partition("Perhaps you meant:")
    flags = [flag for flag in dict.fromkeys(re.findall(r"--[a-z][\w.-]*", guessed)) if flag != "--help"]
    return f"{paragraph}; did you mean {' or '.join(flags[:_SHOWN])}?" if flags else paragraph


def require_free(flags: Iterable[str], decided: Iterable[str], by: str) -> None:
    """ValueError if a flag sets what other flags decide. decided: settings, names with dots."""
    for word in flags:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and re.sub(r"(^|\.)no_", r"\1", flag[2:].replace("-", "_")) in decided:
            raise ValueError(f"{flag} is decided by {by} here")


def open_network(
    path: Path, which: Literal["best", "latest"] | None, device: str
) -> tuple[RunFolder, Config, "nn.Module", str]:
    """The folder of a run or of an exported agent, its config, its network and what to call that.

    which: the network of a run; None: the best. An agent has only one.

    Raises:
        UserError: the folder holds neither, its files are damaged, the agent names no game or one that it cannot
            play, or which is given for an agent.
        ValueError: the game is unknown, or its module is not imported.
    """
    from wn_rl.export.agent import WEIGHTS, read_agent
    from wn_rl.machine import resolve_device
    from wn_rl.run.loading import evaluation_spec, load_run

    folder = RunFolder(path)
    folder.require_own()
    if not (path / WEIGHTS).exists():
        run = load_run(path, which or "best", device)
        return folder, run.config, run.network, run.name
    agent = read_agent(path)
    if which is not None:
        raise UserError(f"--network is for a run, and {path} is an exported agent, which has one network")
    if "config" not in agent.run:
        raise UserError(f"{path} does not say which game it plays: no run of wn-rl trained it")
    config = from_json(agent.run["config"])
    spec = evaluation_spec(config)
    given = config.network.stack, *spec.frame_shape, spec.num_actions, spec.dtype, spec.scale
    if given != (*agent.preprocess.stacked_shape, len(agent.actions), agent.dtype, agent.preprocess.scale):
        raise UserError(f"{path} does not fit {config.game}, whose observations or actions are others")
    return folder, config, agent.network.to(resolve_device(device)), agent.name


def progress(policy: str) -> Callable[[], None]:
    """A function to call at every step of an evaluation, which says every ten seconds how far it is."""
    started = said = time.monotonic()
    steps = 0

    def tick() -> None:
        nonlocal said, steps
        steps += 1
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"evaluating the {policy}: {steps:,} steps of each lane in {said - started:.0f} s")

    return tick
