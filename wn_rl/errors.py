"""The error that means: the user can mend this. And how a user is told."""

import sys


class UserError(ValueError):
    """Its message is one line on what is wrong and what to do; the command line prints it and exits 2."""


def say(line: str) -> None:
    """One line on standard error, where it is in no one's way."""
    print(line, file=sys.stderr, flush=True)
