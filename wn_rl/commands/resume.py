"""`wn-rl resume`: continue a run that stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from wn_rl.commands._shared import RunPath, parse_flags
from wn_rl.compare.grid import changed
from wn_rl.config import Accelerate, Config, TrackerNames, flat, to_json
from wn_rl.config_checks import CountOrNone
from wn_rl.errors import say
from wn_rl.run.folder import open_run


@dataclass(frozen=True)
class Resume:
    """Continue a run that stopped, from its last checkpoint. What is not given stays as it was. With another
    device, accelerate or torch_threads, the run is not the same bit for bit.
    """

    run: RunPath
    """The run's folder."""
    steps: CountOrNone = None
    """Train to this many steps instead: a run can be made longer, as long as it has its replay."""
    keep_replay: bool | None = None
    """Keep the replay when the run finishes, even if it exceeds 1 GB, or not."""
    device: str | None = None
    """auto, cpu, cuda or cuda:N."""
    track: TrackerNames | None = None
    """Where metrics go."""
    torch_threads: int | None = None
    """CPU threads of torch."""
    accelerate: Accelerate | None = None
    """How updates are computed."""
    checkpoint_period: CountOrNone = None
    """Steps between checkpoints."""
    processes: Annotated[int | None, tyro.conf.arg(name="environment.processes")] = None
    """Processes that step the lanes. Results do not depend on it."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl resume`."""
    options = parse_flags(Resume, arguments)
    from wn_rl.machine import versions
    from wn_rl.run.training import last_session, set_torch_threads, train_in

    folder, record, config = open_run(options.run)
    folder.require_unchanged(flat(config))
    longer = _changed(config, options)
    if longer.steps < config.steps:
        raise ValueError(f"--steps {longer.steps} is less than the run's {config.steps}: a run can only grow")
    if folder.is_finished() and longer.steps == config.steps:
        say(f"{folder.shown} is finished at {config.steps:,} steps; --steps N makes it longer")
        return 0
    if config.optimizer.anneal and longer.steps > config.steps:
        raise ValueError(f"--steps: the learning rate falls to 0 at step {config.steps} (--optimizer.anneal)")
    end = folder.read_status().step if folder.is_finished() else 0
    if end % config.log_period >= config.num_envs:
        say(f"metrics.jsonl keeps the row of step {end:,}, which a run of {longer.steps:,} steps lacks")
    longer = set_torch_threads(longer)
    recorded = last_session(record).get("versions", {})
    before = {**recorded, **vars(config)}
    now = {**versions(), **vars(longer)}
    for name in (*recorded, "device", "accelerate", "torch_threads"):
        if before[name] != now.get(name):
            say(f"warning: {name} was {before[name]}, is {now.get(name)}: the run may not be the same bit for bit")
    return train_in(longer, folder, {**record, "config": to_json(longer)}, resume=True).exit_code


def _changed(config: Config, options: Resume) -> Config:
    """The config with the options that are given. ValueError: it is invalid."""
    from wn_rl.machine import resolve_device

    given = {name: value for name, value in vars(options).items() if name != "run" and value is not None}
    if "device" in given:
        given["device"] = str(resolve_device(given["device"]))
    if "processes" in given:
        given["environment.processes"] = given.pop("processes")
    return changed(config, given)
