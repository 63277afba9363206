"""A run in its folder: starting it, resuming it, and reading the network that it made."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wn_rl.agents.evaluation import Interrupted, make_test_environments
from wn_rl.agents.experiment import Experiment
from wn_rl.agents.learner import make_online_network
from wn_rl.agents.monitor import Monitor, StopRequest
from wn_rl.checkpoint import CheckpointError, CheckpointStore
from wn_rl.config import Config
from wn_rl.network_file import read_network_file
from wn_rl.nn import fold
from wn_rl.runs import RunFolder
from wn_rl.tracking import Tracker


def identity(config: Config) -> dict[str, Any]:
    """What a checkpoint must share with a run to be loaded into it."""
    network = dataclasses.asdict(config.network)
    return {
        "suite": config.suite,
        "game": config.game,
        "parameterization": config.parameterization,
        "num_envs": config.num_envs,
        "seed": config.seed,
        "optimizer": config.optimizer.name,
        "replay_capacity": config.learning.replay_capacity,
        **{f"network.{name}": network[name] for name in ("name", "stack", "log_scale")},
    }


def checkpoint_store(config: Config, path: Path) -> CheckpointStore:
    """The checkpoints of the run at path."""
    return CheckpointStore(RunFolder(path).checkpoints, identity(config))


def load_network(config: Config, folder: RunFolder, which: str, device: torch.device) -> tuple[nn.Module, int]:
    """A run's network with plain layers, and the step it comes from.

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
        step = int(metadata["step"])
    else:
        loaded = checkpoint_store(config, folder.path).load_state(print)
        if loaded is None:
            raise CheckpointError(f"{folder.path} has no checkpoint yet")
        step, state = loaded
        tensors = state["experiment"]["learner"]["online"]
    online.load_state_dict(tensors)
    return fold(online).to(device), step


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the process's exit code and a line for its user."""

    exit_code: int
    message: str


def run(
    config: Config,
    experiment: Experiment,
    folder: RunFolder,
    tracker: Tracker,
    report: Callable[[str], None],
    *,
    resume: bool,
) -> Outcome:
    """Train in the folder, whose lock the caller holds, from the start or from the last checkpoint.

    Raises:
        CheckpointError: every checkpoint is damaged, or belongs to another run.
    """
    store = checkpoint_store(config, folder.path)
    stop = StopRequest()
    monitor = Monitor(config, folder, tracker, store, stop, report)
    if resume:
        _restore(experiment, monitor, tracker, store, report)
    with stop.listening():
        folder.write_status("running", experiment.num_steps)
        try:
            experiment.run(monitor)
        except Interrupted:
            number = stop.signal_number or signal.SIGINT
            said = f"saved at step {experiment.num_steps:,}; go on with: wn-rl resume {folder.path}"
            outcome = Outcome(128 + number, said)
            folder.write_status("interrupted", experiment.num_steps, outcome.message)
        except FloatingPointError as error:
            outcome = Outcome(1, f"stopped at step {experiment.num_steps:,}: {error}; the last checkpoint is kept")
            folder.write_status("failed", experiment.num_steps, outcome.message)
        else:
            outcome = Outcome(0, f"finished {experiment.num_steps:,} steps in {folder.path}")
            folder.write_status("finished", experiment.num_steps, outcome.message)
            if not config.keep_replay:
                store.drop_replay()  # last: a run killed before it can still be resumed
        tracker.close(outcome.exit_code)
    experiment.environments.close()
    return outcome


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
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    return dataclasses.replace(config, torch_threads=torch.get_num_threads())
