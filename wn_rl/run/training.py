"""A run in its folder: starting it, resuming it, and how it ends."""

import contextlib
import dataclasses
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wn_rl import envs
from wn_rl.agents.dqn import DQN, Targets, q_learning
from wn_rl.agents.evaluation import Interrupted
from wn_rl.agents.experiment import make_dqn, restore
from wn_rl.config import Config, to_json
from wn_rl.envs.base import InvalidOutput
from wn_rl.errors import UserError, in_one_line, refusing, say
from wn_rl.machine import GIGABYTE, machine_line, resolve_device, versions
from wn_rl.registry import command_line
from wn_rl.run.checkpoint import CheckpointStore
from wn_rl.run.console import describe_start
from wn_rl.run.files import require_form
from wn_rl.run.folder import RunFolder, Status, arm_on_game, write_json
from wn_rl.run.monitor import Monitor
from wn_rl.run.signals import StopNow, StopRequest
from wn_rl.run.sinks import RunInfo
from wn_rl.run.tensor_files import run_identity
from wn_rl.run.tracking import make_trackers, wandb_tracker
from wn_rl.run.wandb_sink import sessions_of

KEPT_REPLAY_BYTES = 10**9  # of a finished run, which can then be lengthened; a larger one needs --keep-replay


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the status of its folder, the process's exit code and a line for its user."""

    status: Status
    exit_code: int
    message: str


def train(
    config: Config, run_dir: str | Path, *, command: Sequence[str] | None = None, targets: Targets = q_learning
) -> Outcome:
    """Train in a new or empty folder, as `wn-rl train` does: metrics, evaluations, checkpoints, best network.

    SIGINT and SIGTERM save the run and end it, if it is called in the main thread: others get no signals.
    command: recorded in config.json; None: that of this process.
    targets: what action values are trained towards; examples/double_dqn.py has others than Q-learning's.

    Look at the outcome: a run that was stopped is `interrupted` and one that failed is `failed`, and neither is
    raised.

    Raises:
        UserError: the folder is not empty, or the device is not available.
        ValueError: the config is invalid.
        KeyboardInterrupt: a second signal came; what was saved before is kept.
    """
    folder = RunFolder(Path(run_dir))
    folder.require_new()
    threads = torch.get_num_threads()
    try:
        config = set_torch_threads(
            dataclasses.replace(
                config,
                game=envs.normalize_game(config.suite, config.game),
                device=str(resolve_device(config.device)),
                optimizer=dataclasses.replace(config.optimizer, learning_rate=config.learning_rate),
                run_name=config.run_name or folder.path.name,
            )
        )
        command = list(command or sys.orig_argv)
        record = {"config": to_json(config), **_circumstances(config), "command": command}
        return train_in(config, folder, record, resume=False, targets=targets)
    finally:
        torch.set_num_threads(threads)  # the caller's process may have other work


def _circumstances(config: Config) -> dict[str, Any]:
    """What decides a run's numbers besides its config."""
    return {"versions": versions(), "machine": machine_line(torch.device(config.device))}


def last_session(record: dict[str, Any]) -> dict[str, Any]:
    """The "versions" and "machine" that a run was last trained with, from its config.json."""
    return dict([record, *record.get("sessions", [])][-1])


def _with_session(record: dict[str, Any], config: Config, step: int) -> dict[str, Any]:
    """The record of a run resumed at a step: with a further session if versions or machine have changed."""
    sessions = [session for session in record.get("sessions", []) if session["step"] < step]  # others left nothing
    known, now = {**record, "sessions": sessions}, _circumstances(config)
    if all(last_session(known).get(name) == value for name, value in now.items()):
        return known
    return {**known, "sessions": [*sessions, {"step": step, **now}]}


def train_in(
    config: Config, folder: RunFolder, record: dict[str, Any], *, resume: bool, targets: Targets = q_learning
) -> Outcome:
    """Build everything before the folder is touched, then train in it under its lock.

    record: the content of config.json; written before the first step, but only after a checkpoint is loaded.
    resume: continue from the last checkpoint. Its record lists other versions or another machine in "sessions", by
    their first step.

    Raises:
        CheckpointError: every checkpoint is damaged, or belongs to another run; nothing was changed.
    """
    dqn = make_dqn(config, resolve_device(config.device), targets)
    with folder.lock():
        if not resume:
            folder.require_new()  # again: another run may have begun here since
        for line in describe_start(config, folder.shown):
            say(line)
        outcome = Session(config, dqn, folder).run(record, resume=resume)
    say(outcome.message)
    return outcome


def run_info(config: Config, folder: RunFolder, circumstances: dict[str, Any]) -> RunInfo:
    """What trackers know of a run. circumstances: its "versions" and "machine"."""
    return RunInfo(
        run_dir=folder.path,
        config={**to_json(config), **{name: circumstances.get(name) for name in ("versions", "machine")}},
        run_name=config.run_name or folder.path.name,
        group=config.group or arm_on_game(config),
        tags=(config.suite, config.game, config.parameterization, config.preset),
        total_steps=config.steps,
        report=say,
    )


def log_scores(config: Config, folder: RunFolder, scores: Mapping[str, Any]) -> None:
    """Add scores to the W&B run of a folder, if it has one and no process trains it. An offline run stays so."""
    for session, run_id in sessions_of(folder.path)[-1:] if "wandb" in config.track else ():
        with contextlib.suppress(UserError, OSError), folder.lock():
            tracker = wandb_tracker(run_info(config, folder, last_session(folder.read_config())))
            tracker.load_state_dict({"id": run_id, "offline": session.name.startswith("offline")})
            tracker.log({"step": folder.read_status().step, **scores})
            tracker.close(0)


class Session:
    """A run while it trains in its folder, whose lock the caller holds."""

    def __init__(self, config: Config, dqn: DQN, folder: RunFolder) -> None:
        self.config, self.dqn, self.folder = config, dqn, folder
        info = run_info(config, folder, _circumstances(config))
        self.tracker = make_trackers(config.track, info)
        self.store = CheckpointStore(folder.checkpoints, run_identity(config, dqn.environments.spec))
        self.stop = StopRequest()
        self.monitor = Monitor(config, folder, self.tracker, self.store, self.stop)
        self.monitor.activity = info.activity

    def run(self, record: dict[str, Any], *, resume: bool) -> Outcome:
        """Train from the start or from the last checkpoint, to the end or to whatever ends it before."""
        self._warn()
        if resume:
            self._restore()
            record = _with_session(record, self.config, self.dqn.num_steps)
        spec = dataclasses.asdict(self.dqn.environments.spec)
        write_json(self.folder.config_file, {**record, "spec": spec})
        with self.stop.listening():
            self._write_status("running", "")
            try:
                outcome = self._train()
            except StopNow:
                self._write_status("interrupted", "stopped at once")
                raise
            self._write_status(outcome.status, outcome.message)
            if outcome.status == "finished" and not self._keeps_replay:
                self.store.drop_replay()  # last: a run killed before it can still be resumed
            self.tracker.close(outcome.exit_code)
        self.dqn.environments.close()
        return outcome

    def _warn(self) -> None:
        """Say what the run is too short for, or cannot repeat."""
        config = self.config
        spec = self.dqn.environments.spec
        if spec.guess:
            say(spec.guess)
        if not spec.repeatable:
            say(f"{config.game} does not repeat an episode from its seed: a resumed run would start new ones")
        for missing, is_missing, end in (
            ("update", config.steps <= config.learning.replay_start, "with --learning.replay-start or before"),
            ("evaluation", config.evaluation.period > config.steps, "before the first --evaluation.period"),
        ):
            if is_missing:
                say(f"warning: no {missing} will be made: --steps {config.steps} ends {end}")

    def _train(self) -> Outcome:
        dqn, monitor = self.dqn, self.monitor
        advice = "resume it with: " + command_line("resume", str(self.folder.shown))
        try:
            dqn.run(self.config.steps, monitor)
        except Interrupted:
            words = "nothing was saved" if monitor.saved_step is None else f"saved at step {monitor.saved_step:,}"
            code = 128 + (self.stop.signal_number or signal.SIGINT)
            return Outcome("interrupted", code, f"{words}; {advice}")
        except StopNow:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # an environment may raise any of them
            if not isinstance(error, FloatingPointError | UserError | InvalidOutput | ChildProcessError):
                traceback.print_exc()  # a fault of the program or the machine: say where
            is_kept = monitor.saved_step is not None and self.folder.checkpoints.is_dir()
            kept = "the last checkpoint is kept" if is_kept else "no checkpoint was saved"
            reason = in_one_line(error if isinstance(error, Exception) else f"{type(error).__name__} {error}")
            code = 2 if isinstance(error, InvalidOutput) else 1
            return Outcome("failed", code, f"stopped at step {dqn.num_steps:,}: {reason}; {kept}")
        if monitor.saved_step != dqn.num_steps:
            return Outcome("failed", 1, f"the last checkpoint could not be written: mend that, then {advice}")
        size = f"{self.store.replay_bytes() / GIGABYTE:.1f} GB"
        kept = (
            "" if self._keeps_replay else f" (without its replay of {size}, which --keep-replay would have kept)"
        )
        return Outcome("finished", 0, f"finished {dqn.num_steps:,} steps in {self.folder.shown}{kept}")

    @property
    def _keeps_replay(self) -> bool:
        return self.config.keep_replay or self.store.replay_bytes() <= KEPT_REPLAY_BYTES

    def _write_status(self, status: Status, message: str) -> None:
        """Write status.json; a full disk must not end the run."""
        try:
            self.folder.write_status(status, self.dqn.num_steps, message)
        except OSError as error:
            say(f"warning: {self.folder.status_file} could not be written: {error}")

    def _restore(self) -> None:
        """Load the newest whole checkpoint; without one the run starts again, and so do its metrics."""
        loaded = self.store.load(self.dqn.replay, say)
        if loaded is None:
            say("no checkpoint was reached before the run stopped: it starts again from step 0")
            return
        step, state = loaded
        with refusing(f"the checkpoint of step {step:,} cannot be used"):
            require_form(state, {"experiment": dict, "monitor": dict, "tracker": {str: dict}}, "its state")
            lost = restore(self.dqn, state["experiment"])
            self.monitor.load_state_dict(state["monitor"])
            self.tracker.load_state_dict(state["tracker"])
        say(f"resuming at step {step:,}")
        if lost:
            say(
                f"warning: {len(lost)} of {self.config.num_envs} lanes could not restore their episode and "
                "started a new one, so this run is no longer reproducible bit for bit"
            )


def set_torch_threads(config: Config) -> Config:
    """Set torch's CPU threads and return the config with their number, since results depend on it."""
    torch.set_num_threads(config.torch_threads or torch.get_num_threads())
    return dataclasses.replace(config, torch_threads=torch.get_num_threads())
