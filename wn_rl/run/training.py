"""A run in its folder: starting it, resuming it, and reading the network that it made."""

import dataclasses
import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from wn_rl import envs
from wn_rl.agents.accelerate import set_tf32
from wn_rl.agents.dqn import Experiment
from wn_rl.agents.evaluation import Interrupted, make_test_environments
from wn_rl.agents.learner import make_online_network
from wn_rl.config import Config, identity, to_json
from wn_rl.errors import UserError, say
from wn_rl.machine import machine_line, resolve_device, versions
from wn_rl.nn import fold
from wn_rl.registry import command_line
from wn_rl.run.checkpoint import CheckpointError, CheckpointStore
from wn_rl.run.folder import RunFolder, Status, open_run, write_json
from wn_rl.run.monitor import Monitor
from wn_rl.run.signals import StopNow, StopRequest
from wn_rl.run.tensor_files import read_best_network
from wn_rl.run.tracking import Tracker, make_trackers


def checkpoint_store(config: Config, path: Path) -> CheckpointStore:
    """The checkpoints of the run at path."""
    return CheckpointStore(RunFolder(path).checkpoints, identity(config))


def load_network(config: Config, folder: RunFolder, which: str, device: torch.device) -> tuple[nn.Module, str]:
    """A run's network with plain layers, and what to call it, e.g. "best network, step 75,000".

    which: "best", that of the greatest test score, or "latest", that of the newest checkpoint. Before the
    first test there is no best one yet, and the newest checkpoint is taken.

    Raises:
        UserError: there is none, or it is damaged or of another run.
    """
    if which not in ("best", "latest"):
        raise UserError(f"no network {which!r} of a run: there are best and latest")
    set_tf32(config.learning.precision == "tf32", device)
    environments = make_test_environments(config, num_envs=1, seed=0)
    online = make_online_network(config, environments.spec)
    environments.close()
    if which == "best" and folder.best_network.exists():
        tensors, step = read_best_network(folder.best_network, config)
    else:
        which = "latest"
        loaded = checkpoint_store(config, folder.path).load_state(say)
        if loaded is None:
            raise CheckpointError(f"{folder.path} has no checkpoint yet")
        step, state = loaded
        tensors = state["experiment"]["learner"]["online"]
    online.load_state_dict(tensors)
    return fold(online).to(device), f"{which} network, step {step:,}"


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run's config and network, for use outside of training.

    network: plain torch layers in eval mode: [B, K, *O] as the environment gives them -> [B, A].
    name: which network it is, e.g. "best network, step 75,000".
    """

    config: Config
    network: nn.Sequential
    name: str


def load_run(run_dir: str | Path, which: str = "best", device: str = "cpu") -> LoadedRun:
    """The config of the run in a folder, and its network (see `load_network`).

    Raises:
        UserError: there is no run, no network of it yet, or its files are damaged.
    """
    folder, _, config = open_run(run_dir)
    network, name = load_network(config, folder, which, resolve_device(device))
    return LoadedRun(config, cast(nn.Sequential, network), name)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the status of its folder, the process's exit code and a line for its user."""

    status: Status
    exit_code: int
    message: str


def train(config: Config, run_dir: str | Path, *, command: Sequence[str] | None = None) -> Outcome:
    """Train in a new or empty folder, as `wn-rl train` does: metrics, tests, checkpoints, best network.

    SIGINT and SIGTERM save the run and end it. Call it in the main thread, which alone can listen to signals.
    command: recorded in config.json; None: that of this process.

    Look at the outcome before going on: a run that was stopped is `interrupted` and one that failed is `failed`,
    and neither is raised.

    Raises:
        UserError: the folder is not empty, or the device cannot be had.
        ValueError: the config cannot be.
        KeyboardInterrupt: a second signal came; what was saved before is kept.
    """
    folder = RunFolder(Path(run_dir))
    folder.require_new()
    threads = torch.get_num_threads()
    try:
        config = use_threads(
            dataclasses.replace(
                config,
                game=envs.normalize_game(config.suite, config.game),
                device=str(resolve_device(config.device)),
                optimizer=dataclasses.replace(config.optimizer, learning_rate=config.learning_rate),
                run_name=config.run_name or folder.path.name,
            )
        )
        record = {
            "config": to_json(config),
            **_circumstances(config),
            "command": list(command or sys.orig_argv),
        }
        return train_in(config, folder, record, resume=False)
    finally:
        torch.set_num_threads(threads)  # the caller's process may have other work


def _circumstances(config: Config) -> dict[str, Any]:
    """What decides a run's numbers besides its config."""
    return {"versions": versions(), "machine": machine_line(torch.device(config.device))}


def last_session(record: dict[str, Any]) -> dict[str, Any]:
    """The "versions" and "machine" that a run was last trained with, from its config.json."""
    return dict([record, *record.get("sessions", [])][-1])


def _with_session(record: dict[str, Any], config: Config, step: int) -> dict[str, Any]:
    """The record of a run that goes on from a step: with a session more, if versions or machine are others."""
    sessions = [session for session in record.get("sessions", []) if session["step"] < step]  # others left nothing
    known, now = {**record, "sessions": sessions}, _circumstances(config)
    if all(last_session(known).get(name) == value for name, value in now.items()):
        return known
    return {**known, "sessions": [*sessions, {"step": step, **now}]}


def train_in(config: Config, folder: RunFolder, record: dict[str, Any], *, resume: bool) -> Outcome:
    """Build everything before the folder is touched, then train in it under its lock, from the start or on."""
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
    return outcome


def run(
    config: Config,
    experiment: Experiment,
    folder: RunFolder,
    tracker: Tracker,
    report: Callable[[str], None],
    *,
    record: dict[str, Any],
    resume: bool,
) -> Outcome:
    """Train in the folder, whose lock the caller holds, from the start or from the last checkpoint.

    record: what config.json shall hold; written before the first step, and not before a checkpoint is loaded. A
    run that is resumed with other versions or on another machine says so in its "sessions", by their first step.

    Raises:
        CheckpointError: every checkpoint is damaged, or belongs to another run; nothing was changed.
    """
    store = checkpoint_store(config, folder.path)
    stop = StopRequest()
    monitor = Monitor(config, folder, tracker, store, stop, report)
    if not experiment.environments.spec.repeatable:
        report(f"{config.game} does not repeat a game from its seed: a resumed run would begin new games")
    for warning in _idle_parts(config):
        report(f"warning: {warning}")
    if resume:
        _restore(experiment, monitor, tracker, store, report)
        record = _with_session(record, config, experiment.num_steps)
    write_json(folder.config_file, record)
    with stop.listening():
        _write_status(folder, "running", experiment.num_steps, "", report)
        try:
            outcome = _train(config, experiment, folder, monitor, stop)
        except StopNow:
            _write_status(folder, "interrupted", experiment.num_steps, "stopped at once", report)
            raise
        _write_status(folder, outcome.status, experiment.num_steps, outcome.message, report)
        if outcome.status == "finished" and not config.keep_replay:
            store.drop_replay()  # last: a run killed before it can still be resumed
        tracker.close(outcome.exit_code)
    experiment.environments.close()
    return outcome


def _idle_parts(config: Config) -> Iterator[str]:
    """What a run is too short for."""
    if config.steps <= config.learning.replay_start:
        yield f"no update will be made: --steps {config.steps} ends with --learning.replay-start or before"
    if config.evaluation.period > config.steps:
        yield f"no test will be made: --steps {config.steps} ends before the first --evaluation.period"


def _train(
    config: Config, experiment: Experiment, folder: RunFolder, monitor: Monitor, stop: StopRequest
) -> Outcome:
    """Run the experiment to its end, or to whatever ends it before."""
    resume_command = "go on with: " + command_line("resume", str(folder.path))
    try:
        experiment.run(monitor)
    except Interrupted:
        saved = "nothing was saved" if monitor.saved_step is None else f"saved at step {monitor.saved_step:,}"
        return Outcome("interrupted", 128 + (stop.signal_number or signal.SIGINT), f"{saved}; {resume_command}")
    except Exception as error:
        if not isinstance(error, FloatingPointError):
            traceback.print_exc()  # a fault of the program or the machine: say where
        kept = "no checkpoint was saved" if monitor.saved_step is None else "the last checkpoint is kept"
        said = f"stopped at step {experiment.num_steps:,}: {error}; {kept}"
        return Outcome("failed", 1, said)
    if monitor.saved_step != experiment.num_steps:
        return Outcome("failed", 1, f"the last checkpoint could not be written: make room, then {resume_command}")
    kept = "" if config.keep_replay else " (its replay is dropped: --keep-replay would let it be lengthened)"
    return Outcome("finished", 0, f"finished {experiment.num_steps:,} steps in {folder.path}{kept}")


def _write_status(
    folder: RunFolder, status: Status, step: int, message: str, report: Callable[[str], None]
) -> None:
    """Note how the run is; a full disk must not end it."""
    try:
        folder.write_status(status, step, message)
    except OSError as error:
        report(f"warning: {folder.status_file} could not be written: {error}")


def _restore(
    experiment: Experiment,
    monitor: Monitor,
    tracker: Tracker,
    store: CheckpointStore,
    report: Callable[[str], None],
) -> None:
    """Load the newest whole checkpoint; without one the run begins again, and so do its metrics."""
    loaded = store.load(experiment.replay, report)
    if loaded is None:
        report("no checkpoint was reached before the run stopped: it starts again from step 0")
        return
    step, state = loaded
    lost = experiment.load_state_dict(state["experiment"])
    monitor.load_state_dict(state["monitor"])
    tracker.load_state_dict(state["tracker"])
    report(f"resuming at step {step:,}")
    if lost:
        lanes = f"{len(lost)} of {experiment.config.num_envs} lanes"
        report(f"warning: the games of {lanes} cannot be gone on with, and new ones begin: not bit for bit")


def use_threads(config: Config) -> Config:
    """Set torch's CPU threads and return the config with their number, since results depend on it."""
    torch.set_num_threads(config.torch_threads or torch.get_num_threads())
    return dataclasses.replace(config, torch_threads=torch.get_num_threads())
