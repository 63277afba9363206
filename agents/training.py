"""A run in its folder: starting it, resuming it, and reading the network that it made."""

import dataclasses
import json
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wn_rl.agents.evaluation import Interrupted, make_test_environments
from wn_rl.agents.experiment import Experiment
from wn_rl.agents.learner import make_online_network
from wn_rl.agents.monitor import Monitor, StopNow, StopRequest
from wn_rl.checkpoint import CheckpointError, CheckpointStore
from wn_rl.config import Config, identity
from wn_rl.errors import say
from wn_rl.network_file import read_network_file
from wn_rl.nn import fold
from wn_rl.runs import RunFolder, Status, write_json
from wn_rl.tracking import Tracker


def checkpoint_store(config: Config, path: Path) -> CheckpointStore:
    """The checkpoints of the run at path."""
    return CheckpointStore(RunFolder(path).checkpoints, identity(config))


def load_network(config: Config, folder: RunFolder, which: str, device: torch.device) -> tuple[nn.Module, str]:
    """A run's network with plain layers, and what to call it, e.g. "best network, step 75,000".

    which: "best", that of the greatest test score, or "latest", that of the newest checkpoint. Before the
    first test there is no best one yet, and the newest checkpoint is taken.

    Raises:
        CheckpointError: there is none, or it is damaged or of another run.
    """
    environments = make_test_environments(config, num_envs=1, seed=0)
    online = make_online_network(config, environments.spec)
    environments.close()
    if which == "best" and folder.best_network.exists():
        tensors, metadata = read_network_file(folder.best_network)
        if json.loads(metadata["identity"]) != identity(config):
            raise CheckpointError(f"{folder.best_network} is the network of another run")
        step = int(metadata["step"])
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
class Outcome:
    """How a run ended: the status of its folder, the process's exit code and a line for its user."""

    status: Status
    exit_code: int
    message: str


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

    record: what config.json shall hold; written before the first step, and not before a checkpoint is loaded.

    Raises:
        CheckpointError: every checkpoint is damaged, or belongs to another run; nothing was changed.
    """
    store = checkpoint_store(config, folder.path)
    stop = StopRequest()
    monitor = Monitor(config, folder, tracker, store, stop, report)
    if resume:
        _restore(experiment, monitor, tracker, store, report)
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


def _train(
    config: Config, experiment: Experiment, folder: RunFolder, monitor: Monitor, stop: StopRequest
) -> Outcome:
    """Run the experiment to its end, or to whatever ends it before."""
    resume_command = f"go on with: wn-rl resume {folder.path}"
    try:
        experiment.run(monitor)
    except Interrupted:
        saved = "nothing was saved" if monitor.saved_step is None else f"saved at step {monitor.saved_step:,}"
        return Outcome("interrupted", 128 + (stop.signal_number or signal.SIGINT), f"{saved}; {resume_command}")
    except Exception as error:
        if not isinstance(error, FloatingPointError):
            traceback.print_exc()  # a fault of the program or the machine: say where
        said = f"stopped at step {experiment.num_steps:,}: {error}; the last checkpoint is kept"
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
    experiment.load_state_dict(state["experiment"])
    monitor.load_state_dict(state["monitor"])
    tracker.load_state_dict(state["tracker"])
    report(f"resuming at step {step:,}")


def use_threads(config: Config) -> Config:
    """Set torch's CPU threads and return the config with their number, since results depend on it."""
    torch.set_num_threads(config.torch_threads or torch.get_num_threads())
    return dataclasses.replace(config, torch_threads=torch.get_num_threads())
