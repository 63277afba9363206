"""Dataclasses from command-line flags, by tyro; what is wrong with them is said in one line."""

import contextlib
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import tyro

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
