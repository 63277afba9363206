"""The error that means: the user can mend this. And how a user is told."""

import difflib
import sys
from collections.abc import Iterable


class UserError(ValueError):
    """Its message is one line on what is wrong and what to do; the command line prints it and exits 2."""


def say(line: str) -> None:
    """One line on standard error, where it is in no one's way."""
    print(line, file=sys.stderr, flush=True)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the choice that it is near to, or nothing.

    >>> did_you_mean("wandbb", ["jsonl", "wandb"]), did_you_mean("x", ["jsonl", "wandb"])
    ('; did you mean wandb?', '')
    """
    near = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def in_one_line(text: object) -> str:
    """An error or a text without its line breaks."""
    return " ".join(str(text).split())


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "game"), counted(30, "game")
    ('1 game', '30 games')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
