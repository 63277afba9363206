"""What the commands share: opening a run, and saying that a test goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.config import Config, from_json
from wn_rl.errors import say
from wn_rl.runs import RunFolder

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


def open_run(path: Path) -> tuple[RunFolder, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it."""
    folder = RunFolder(path)
    record = folder.read_config()
    if "config" not in record:
        raise ValueError(f"{folder.config_file} is not the config of a run")
    return folder, record, from_json(record["config"])


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
