"""The `wn-rl` command: finds the module of a subcommand, runs it, and turns its errors into exit codes.

Exit codes: 0 done, 1 the run or the machine failed, 2 the user's input is invalid, 130 and 143 stopped by Ctrl-C
and SIGTERM.
"""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from wn_rl import __version__
from wn_rl.errors import in_one_line, say
from wn_rl.registry import did_you_mean, import_extensions

# Name: (what follows it, what it does). `wn-rl x` is `run` of wn_rl/commands/x.py, imported when it is called.
COMMANDS = {
    "train": ("GAME", "train an agent; --help lists every setting and where its default comes from"),
    "resume": ("RUN", "continue a run that stopped; --steps N makes it longer"),
    "evaluate": ("RUN", "evaluate a trained agent: 30 episodes by the protocol of Mnih et al. 2015"),
    "play": ("RUN", "watch a trained agent: one episode as an mp4"),
    "export": ("RUN", "write a trained agent as safetensors, ONNX and a model card, into --out FOLDER"),
    "push": ("FOLDER", "upload an exported agent to the Hugging Face hub as --repo-id OWNER/NAME"),
    "games": ("", "list the games of each suite"),
    "doctor": ("", "show what this machine has, and the preset it would use"),
    "compare": ("", "train arms on games over seeds, resuming what stopped, and report them"),
    "tune": ("GAME", "search for settings: trials of --space, the worse ones ended early"),
    "report": ("RUNS", "compare finished runs: tables, figures and a page in --out FOLDER"),
}

_LISTED = "\n".join(f"  {f'{name} {operand}':<16} {summary}" for name, (operand, summary) in COMMANDS.items())
OVERVIEW = f"""usage: wn-rl COMMAND ...

Deep Q-Networks with weight normalization.

{_LISTED}

wn-rl --import MODULE COMMAND ... imports MODULE first, which may add layers, networks and more.
wn-rl COMMAND --help says more. Try first: wn-rl train breakout --suite minatar --steps 100000
"""

# Errors that trying again does not fix; a disk that is full or gone may be back.
_MISTAKES = ValueError, FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code, quietly where nobody reads its output to the end."""
    _open_standard_streams()
    try:
        try:
            _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of standard output, `head` for example, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
        sys.exit(128 + signal.SIGPIPE)


def _open_standard_streams() -> None:
    """Let what the parent has closed lead nowhere: a file that gets its number would get what is printed."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    sys.stdout, sys.stderr = (it or open(os.devnull, "w") for it in (sys.stdout, sys.stderr))  # noqa: SIM115


def _run(arguments: Sequence[str] | None) -> None:
    arguments = _import_extensions(list(sys.argv[1:] if arguments is None else arguments))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(OVERVIEW, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(__version__)
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0], COMMANDS)
        say(f"wn-rl: there is no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}{hint}")
        sys.exit(2)
    try:
        code = importlib.import_module(f"wn_rl.commands.{arguments[0]}").run(arguments[1:])
    except BrokenPipeError:
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        say(f"wn-rl {arguments[0]}: {in_one_line(error)}")
        code = 2 if isinstance(error, _MISTAKES) else 1
    except SystemExit as stop:
        if {"-h", "--help"} & {*arguments} or any(word.startswith("--tyro-") for word in arguments):
            raise
        say(f"wn-rl {arguments[0]}: a part of the program ended itself with code {stop.code}")
        code = 1
    except KeyboardInterrupt as stop:
        say("stopped at once")
        code = getattr(stop, "exit_code", 130)
    sys.exit(code)


def _import_extensions(arguments: list[str]) -> list[str]:
    """Import the modules of --import, which stand before the command; returns the arguments after them."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # `--env-id MODULE:ID` is searched for there too
    modules = []
    while arguments and arguments[0].partition("=")[0] == "--import":
        _, _, module = arguments.pop(0).partition("=")
        if not module and not arguments:
            say("wn-rl --import: name a module")
            sys.exit(2)
        modules.append(module or arguments.pop(0))
    try:
        import_extensions(modules)
    except Exception as error:  # whatever a module of the user's may raise
        if not isinstance(error, ImportError):
            traceback.print_exc()
        say(f"wn-rl --import: {error}")
        sys.exit(2)
    return arguments


if __name__ == "__main__":
    main()
