"""Dataclasses from command-line flags, by tyro; what is wrong with them is said in one line."""

import ast
import contextlib
import io
import itertools
import re
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wn_rl.config import Config, from_json, settings
from wn_rl.config_checks import check_values
from wn_rl.errors import UserError, say
from wn_rl.registry import did_you_mean
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from torch import nn

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]

# Flags of `wn-rl train` that do not fit many runs, each with a game and a folder of its own.
OF_ONE_RUN = ("env_id", "run_dir", "run_name")
_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
# What tyro says of a value that fits no member of a union; the error of each member follows.
_OPTIONAL = re.compile(r"no type matching \{None\}\|(\S+) could be instantiated from \['(.*?)'\]\. Got errors:.*")
_CHOICES = re.compile(r"(invalid choice '(.*?)' for argument '\S+')\. Expected one of (\(.*?\))")
_WHOLE_NUMBERS = tyro.constructors.ConstructorRegistry()


def whole_number(text: str) -> int:
    """An integer as people write it.

    >>> [whole_number(text) for text in ("1_000_000", "100k", "2.5M", "1e6")]
    [1000000, 100000, 2500000, 1000000]

    Raises:
        ValueError: the text is not a whole number, or the number has more than 64 bits.
    """
    written = re.sub("[kmb]$", lambda unit: {"k": "e3", "m": "e6", "b": "e9"}[unit[0]], text.lower())
    with contextlib.suppress(ArithmeticError):  # it is no number
        if abs(number := Decimal(written)) < 2**63 and number == int(number):
            return int(number)
    raise ValueError(f"{text!r} is not a whole number, such as 100000, 100k, 2.5M or 1e6")


_WHOLE_NUMBERS.primitive_rule(
    lambda field: (
        None
        if field.type is not int
        else tyro.constructors.PrimitiveConstructorSpec(
            1, "INT", lambda words: whole_number(words[0]), lambda it: isinstance(it, int), lambda it: [str(it)]
        )
    )
)


def parse_flags(command: type[Any], arguments: Sequence[str], **kwargs: Any) -> Any:
    """The command's flags; with return_unknown_args, beside those that it does not have.

    Raises:
        ValueError: tyro, or `check_values`, refuses them. What tyro would say in a box is in one line.
    """
    prog = f"wn-rl {command.__name__.lower()}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _WHOLE_NUMBERS:
            parsed = tyro.cli(command, prog=prog, args=arguments, **kwargs)
    except SystemExit as stop:
        if not stop.code:
            raise
        said = f"{_text_of_box(complaint.getvalue())}{_hint(command, arguments)}"
        raise ValueError(f"{said} (see {prog} --help)") from None
    check_values(parsed[0] if isinstance(parsed, tuple) else parsed)
    return parsed


def _text_of_box(box: str) -> str:
    """The first paragraph of what tyro drew in a box (framed, or titled without UTF-8)."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    is_framed = any(line.startswith("╭") for line in lines)
    lines = [line for line in lines if line and line[0] not in "╭╰"][0 if is_framed else 2 :]  # a title and a rule
    paragraph = " ".join(itertools.takewhile(lambda line: set(line) not in ({"─"}, {"-"}), lines))
    paragraph = paragraph.replace("argument 'config.", "argument '").rstrip(".")
    return _CHOICES.sub(_choices, _OPTIONAL.sub(r"'\2' is neither None nor \1", paragraph))


def _choices(found: re.Match[str]) -> str:
    choices = sorted({*ast.literal_eval(found[3])} - {"None"})
    return f"{found[1]}: choose from {', '.join(choices)}{did_you_mean(found[2], choices)}"


def _hint(command: type[Any], arguments: Sequence[str]) -> str:
    """The end of a message: what was meant by the first flag that the command, or `wn-rl train`, does not have."""
    of_train = dict(settings())
    own = dict(settings(command)) | (of_train if command.__name__ == "Train" else {})
    positional = {name for name, hint in own.items() if _POSITIONAL in typing.get_args(hint)}
    known = {*own, *of_train, "help"} - positional - {"game"}
    for word in arguments:
        name = re.sub(r"(^|\.)no_(?=[^.]*$)", r"\1", word[2:].partition("=")[0].replace("-", "_"))
        if word.startswith("--") and name not in known:
            flags = [f"--{flag.replace('_', '-')}" for flag in own if flag not in positional]
            return f"; give it without {word}" if name in positional else did_you_mean(word, flags)
    return ""


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
