"""What the commands share: opening a run, training in its folder, saying that a test goes on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.config import Config, from_json, to_json
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


def train_in(config: Config, folder: RunFolder, record: dict[str, Any], *, resume: bool) -> int:
    """Build everything before the folder is touched, then train in it under its lock."""
    from wn_rl.agents.experiment import Experiment
    from wn_rl.agents.training import run
    from wn_rl.machine import resolve_device
    from wn_rl.tracking import make_trackers

    experiment = Experiment(config, resolve_device(config.device))
    with folder.lock():
        if not resume:
            folder.require_new()  # again: another run may have begun here since
        say(f"run folder: {folder.path}")
        say(f"settings: {json.dumps(record['config'])}")
        tracker = make_trackers(
            config.track,
            run_dir=folder.path,
            config=to_json(config),
            run_name=config.run_name or folder.path.name,
            group=config.group or f"{config.suite}-{config.game}",
            tags=[config.suite, config.game, config.parameterization, config.preset],
            total_steps=config.steps,
        )
        outcome = run(config, experiment, folder, tracker, say, record=record, resume=resume)
    say(outcome.message)
    return outcome.exit_code


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
