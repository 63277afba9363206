"""What happens between the steps of a run: logs, evaluations, checkpoints, and requests to stop."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from wn_rl.agents.dqn import DQN
from wn_rl.agents.evaluation import Interrupted, run_epoch_evaluation
from wn_rl.agents.experiment import check_finite, state_of, take_metrics
from wn_rl.config import Config
from wn_rl.errors import UserError, say
from wn_rl.run.checkpoint import CheckpointError, CheckpointStore
from wn_rl.run.files import require_form
from wn_rl.run.folder import RunFolder
from wn_rl.run.play import record_episode
from wn_rl.run.signals import StopRequest
from wn_rl.run.sinks import Activity
from wn_rl.run.tensor_files import run_identity, write_network_file
from wn_rl.run.tracking import Tracker
from wn_rl.seeding import derive_seed


class Stopwatch:
    """Seconds by the monotonic clock, pauses excluded."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager: time does not count."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - start


def crossed(period: int, before: int, now: int) -> bool:
    """Whether a multiple of the period lies in (before, now]."""
    return now // period > before // period


_STATE = {
    **{"last_log": int, "last_test": int, "last_save": int},
    **{"best_score": (float, type(None)), "seconds": float},
}


class Monitor:
    """Called after each step of training: logs, evaluates and saves when due.

    Periods count crossings, so that they hold for any number of lanes: an event is due if a multiple of its
    period lies between the step it was last done at and now. An interrupted evaluation is thus due again.
    """

    def __init__(
        self, config: Config, folder: RunFolder, tracker: Tracker, store: CheckpointStore, stop: StopRequest
    ) -> None:
        self.activity = Activity()
        self._config, self._folder, self._tracker, self._store = config, folder, tracker, store
        self._stop = stop
        self._last_log = self._last_evaluation = self._last_save = 0  # in steps
        self.saved_step: int | None = None  # of the newest checkpoint
        self.best_score: float | None = None
        self._saved_score: float | None = None  # of best_network
        self._unsaved: tuple[dict[str, Tensor], dict[str, str]] | None = None  # what best_network should be
        self._seconds_before = 0.0
        self._total = Stopwatch()
        self._training = Stopwatch()  # without evaluations and checkpoints, for frames_per_second
        self._logged_frames: int | None = None

    def __call__(self, dqn: DQN) -> None:
        """Do what is due.

        Raises:
            Interrupted: the run was asked to stop; it has been saved.
            FloatingPointError: the loss is not finite; nothing was saved.
        """
        config, steps = self._config, dqn.num_steps
        self.activity.doing, self.activity.step, self.activity.best = "training", steps, self.best_score
        finished = steps >= config.steps
        if self._logged_frames is None:
            self._logged_frames = dqn.num_frames
        if crossed(config.log_period, self._last_log, steps) or (finished and steps > self._last_log):
            self._log(dqn, dqn.num_frames - self._logged_frames)
        if config.evaluation.period and crossed(config.evaluation.period, self._last_evaluation, steps):
            with self._training.paused(), contextlib.suppress(Interrupted):
                self._evaluate(dqn)
        if self._stop or finished or crossed(config.checkpoint_period, self._last_save, steps):
            with self._training.paused():
                self._save(dqn)
        self._raise_if_stopped()

    def _log(self, dqn: DQN, frames: int) -> None:
        speed = frames / max(self._training.seconds(), 1e-9)
        self._training = Stopwatch()
        self._last_log, self._logged_frames = dqn.num_steps, dqn.num_frames
        self._tracker.log({**take_metrics(dqn), "frames_per_second": speed, "seconds": self._elapsed()})

    def _elapsed(self) -> float:
        return self._seconds_before + self._total.seconds()

    def _evaluate(self, dqn: DQN) -> None:
        self.activity.doing = "evaluating"
        config, networks = self._config, dqn.learner.networks
        seed = derive_seed(config.seed, "evaluation", dqn.num_steps)
        network = networks.evaluation_network()
        episodes = run_epoch_evaluation(config, network, seed=seed, tick=self._raise_if_stopped)
        video_period = config.evaluation.video_period
        if video_period and (dqn.num_steps // config.evaluation.period) % video_period == 0:
            self._record(dqn, network)
        self._keep_best(dqn, episodes.return_mean)
        self._tracker.log(
            {
                "step": dqn.num_steps,
                "frames": dqn.num_frames,
                "eval/return_mean": episodes.return_mean,
                "eval/return_std": episodes.return_std,
                "eval/length_mean": episodes.length_mean,
                "eval/episodes": len(episodes.returns),
                "eval/best": self.best_score,
                "eval/overestimation": episodes.overestimation,
                "held_out_q": None if dqn.held_out_states is None else networks.max_q(dqn.held_out_states),
            }
        )
        self._last_evaluation = dqn.num_steps

    def _keep_best(self, dqn: DQN, score: float | None) -> None:
        """Write the network of the highest score. What a full disk refuses is kept, and tried again."""
        if score is not None and (self.best_score is None or score > self.best_score):
            self.best_score = score
            own = run_identity(self._config, dqn.environments.spec)
            metadata = {"step": str(dqn.num_steps), "eval/return_mean": repr(score)}
            metadata["identity"] = json.dumps(own, sort_keys=True)
            tensors = dqn.learner.networks.evaluated_state()
            self._unsaved = {name: tensor.clone() for name, tensor in tensors.items()}, metadata
        if self._unsaved is not None:
            try:
                write_network_file(self._folder.best_network, *self._unsaved)
                self._saved_score, self._unsaved = self.best_score, None
            except OSError as error:
                say(f"warning: the best network could not be saved: {error}")

    def _record(self, dqn: DQN, network: nn.Module) -> None:
        path = self._folder.videos / f"step_{dqn.num_steps:012d}.mp4"
        seed = derive_seed(self._config.seed, "video", dqn.num_steps)
        self.activity.doing = "recording"
        try:
            record_episode(self._config, network, path, seed=seed, tick=self._raise_if_stopped)
        except (OSError, ValueError) as error:
            say(f"warning: there is no video of this evaluation: {error}")
        else:
            self._tracker.video(dqn.num_steps, "gameplay", path)

    def _raise_if_stopped(self) -> None:
        if self._stop:
            raise Interrupted

    def _save(self, dqn: DQN) -> None:
        self.activity.doing = "saving"
        check_finite(dqn)
        if not self._folder.config_file.exists():
            raise UserError(f"{self._folder.config_file} was removed while the run went on")
        self._keep_best(dqn, None)
        self._last_save = dqn.num_steps
        state = {
            "experiment": state_of(dqn),
            "monitor": self.state_dict(),
            "tracker": self._tracker.state_dict(),
        }
        try:
            self._store.save(dqn.num_steps, state, dqn.replay)
            self.saved_step = dqn.num_steps
        except CheckpointError as error:
            say(f"warning: {error}; the checkpoint before it is kept")

    def state_dict(self) -> dict[str, Any]:
        """When each thing was last done, the best score, and the seconds spent."""
        return {
            "last_log": self._last_log,
            "last_test": self._last_evaluation,
            "last_save": self._last_save,
            "best_score": self._saved_score,
            "seconds": self._elapsed(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave. ValueError: the state has another form."""
        require_form(state, _STATE, "the record of the run")
        self._last_log, self._last_evaluation = state["last_log"], state["last_test"]
        self._last_save = self.saved_step = state["last_save"]
        self.best_score = self._saved_score = state["best_score"]
        self._seconds_before = state["seconds"]
        self._total = Stopwatch()
        self._training = Stopwatch()
