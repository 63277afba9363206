"""The error that a user can fix, and how a user is told."""

import sys


class UserError(ValueError):
    """Its message is one line on what is wrong and what to do; the command line prints it and exits 2."""


def say(line: str) -> None:
    """Print one line on standard error, apart from the output of a command."""
    print(line, file=sys.stderr, flush=True)


def in_one_line(text: object) -> str:
    """An error or a text without its line breaks."""
    return " ".join(str(text).split())


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "game"), counted(30, "game")
    ('1 game', '30 games')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
