"""`wn-rl resume`: go on with a run that stopped."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from wn_rl.commands._shared import RunPath, parse_flags
from wn_rl.config import Accelerate, Config, TrackerNames, to_json
from wn_rl.errors import say
from wn_rl.run.folder import open_run


@dataclass(frozen=True)
class Resume:
    """Go on with a run that stopped, from its last checkpoint."""

    run: RunPath
    """The run's folder."""
    steps: int | None = None
    """Train to this many steps instead: a run can be made longer."""
    keep_replay: bool | None = None
    """Keep the replay when the run finishes, or not; None: as it was started."""
    device: str | None = None
    """auto, cpu, cuda or cuda:N; None: as it was started, which alone goes on bit for bit."""
    track: TrackerNames | None = None
    """Where metrics go; None: as it was started."""
    torch_threads: int | None = None
    """CPU threads of torch; None: as it was started, which alone goes on bit for bit."""
    accelerate: Accelerate | None = None
    """How updates are computed; None: as it was started, which alone goes on bit for bit."""
    checkpoint_period: int | None = None
    """Steps between checkpoints; None: as it was started."""
    emulator_threads: Annotated[int | None, tyro.conf.arg(name="environment.emulator-threads")] = None
    """Threads of the emulator of several Atari lanes; None: as it was started. Results do not depend on it."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl resume`."""
    options = parse_flags(Resume, arguments)
    from wn_rl.machine import versions
    from wn_rl.run.training import last_session, set_torch_threads, train_in

    folder, record, config = open_run(options.run)
    changed = _changed(config, options)
    if changed.steps < config.steps:
        raise ValueError(f"--steps {changed.steps} is less than the run's {config.steps}: a run can only grow")
    if folder.is_finished() and changed.steps == config.steps:
        say(f"{folder.path} is finished at {config.steps:,} steps; --steps N makes it longer")
        return 0
    before, now = last_session(record)["versions"], versions()
    differing = [f"{name} was {old}, is {now.get(name)}" for name, old in before.items() if old != now.get(name)]
    if differing:
        say(f"warning: {'; '.join(differing)}: the run may not go on bit for bit")
    changed = set_torch_threads(changed)
    for name in ("device", "accelerate", "torch_threads"):
        old, new = getattr(config, name), getattr(changed, name)
        if old != new:
            say(f"warning: {name} was {old}, is {new}: the run does not go on bit for bit")
    return train_in(changed, folder, {**record, "config": to_json(changed)}, resume=True).exit_code


def _changed(config: Config, options: Resume) -> Config:
    """The config with what the options say otherwise. ValueError: it cannot be."""
    from wn_rl.machine import resolve_device

    names = ("steps", "keep_replay", "track", "torch_threads", "accelerate", "checkpoint_period")
    changes = {name: getattr(options, name) for name in names}
    if options.device is not None:
        changes["device"] = str(resolve_device(options.device))
    if options.emulator_threads is not None:
        threads = options.emulator_threads
        changes["environment"] = dataclasses.replace(config.environment, emulator_threads=threads)
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})
