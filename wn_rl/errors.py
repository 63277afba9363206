"""The error that means: the user can mend this."""


class UserError(ValueError):
    """Its message is one line on what is wrong and what to do; the command line prints it and exits 2."""
