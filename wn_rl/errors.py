"""The error that a user can fix, and how a user is told."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Its message is one line on what is wrong and what to do; the command line prints it and exits 2."""


def say(line: str) -> None:
    """Print one line on standard error, apart from the output of a command; control characters are escaped."""
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr, flush=True)


def in_one_line(text: object) -> str:
    """An error or a text without its line breaks, and without the middle of what is too long to read."""
    line = " ".join(str(text).split())
    return line if len(line) <= 1000 else f"{line[:500]} ... {line[-500:]}"


@contextlib.contextmanager
def refusing(words: str, kind: type[Exception] = UserError) -> Iterator[None]:
    """Context manager: whatever Python, numpy or torch says of malformed data becomes an error of one line."""
    try:
        yield
    except (UserError, kind):
        raise
    except Exception as error:
        raise kind(f"{words}: {in_one_line(error)}") from error


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "game"), counted(30, "game")
    ('1 game', '30 games')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
