"""A search over settings: trials, each a run in a folder of its own, and the worse ones ended early.

    OUT/study.journal                the trials and their scores
    OUT/runs/trial-0007/             one run, as `wn-rl train` makes it
    OUT/logs/trial-0007.log          what its process printed

A search that was stopped at any instant goes on: its unfinished trials resume, with the values that they had.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wn_rl.checkpoint import CheckpointStore
from wn_rl.config import Config, identity
from wn_rl.errors import UserError
from wn_rl.compare.launch import StopSignals
from wn_rl.launch_child import describe_end, prepare
from wn_rl.launch_local import LocalLauncher
from wn_rl.runs import RunFolder
from wn_rl.compare.grid import Run, look
from wn_rl.tune_study import Study, Trial

SCORED_TESTS = 3

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TrialRun(Run):
    """The run of a trial."""

    number: int = 0

    @property
    def name(self) -> str:
        """The name of its folder, e.g. trial-0007."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """What a trial's folder is called."""
    return f"trial-{number:04d}"


def scores_of(run: Path) -> list[float]:
    """The score after each test of a run so far: the mean raw return of its last SCORED_TESTS tests.

    A test in which no game ended is not counted.
    """
    returns = _test_returns(RunFolder(run).metrics_file)
    windows = (returns[max(0, end - SCORED_TESTS) : end] for end in range(1, len(returns) + 1))
    return [sum(window) / len(window) for window in windows]


def _test_returns(metrics: Path) -> list[float]:
    try:
        lines = metrics.read_bytes().split(b"\n")[:-1]  # the last may be in the writing
    except FileNotFoundError:
        return []
    rows = [json.loads(line) for line in lines if b'"eval/return_mean"' in line]
    return [row["eval/return_mean"] for row in rows if row["eval/return_mean"] is not None]


@dataclass
class _Running:
    trial: Trial
    run: TrialRun
    tests: int = 0  # seen so far
    pruned: bool = False


@dataclass
class Search:
    """Tries so many trials, all together with those of earlier invocations.

    configure: from the values of a trial to the config of its run; a ValueError fails the trial. say: is told
    of each trial that ends.
    """

    study: Study
    out: Path
    launcher: LocalLauncher
    configure: Callable[[Trial], Config]
    num_trials: int
    stop: StopSignals
    say: Callable[[str], None]
    _running: dict[str, _Running] = field(default_factory=dict)
    _stops_passed_on: int = 0

    def run(self) -> None:
        """Until every trial is over, or a signal has ended those that were running."""
        queue = deque(self.study.unfinished())
        try:
            while self._running or (not self.stop.count and (queue or len(self.study) < self.num_trials)):
                if self.stop.count > self._stops_passed_on:
                    self.launcher.stop(at_once=self.stop.count > 1)
                    self._stops_passed_on = self.stop.count
                if not self.stop.count:
                    self._start_what_can(queue)
                    self._prune_the_worse()
                for ended in self.launcher.ended():
                    self._settle(self._running.pop(ended.run.name), ended.exit_code)
                time.sleep(_POLL_SECONDS)
        finally:
            if self._running:  # an error of our own: no trial outlives the search
                self.launcher.stop(at_once=False)

    def _start_what_can(self, queue: deque[Trial]) -> None:
        while self.launcher.has_room() and (queue or len(self.study) < self.num_trials):
            trial = queue.popleft() if queue else self.study.ask()
            if not self._start(trial):
                queue.append(trial)
                return

    def _start(self, trial: Trial) -> bool:
        """Start a trial, or settle one that needs no run. False: another process still works in its folder."""
        try:
            run = TrialRun(self.configure(trial), self.out, trial.number)
            found = look(run)
            if found.state == "unreadable":
                raise ValueError(found.message)
            if found.state == "finished":
                self._settle(_Running(trial, run), 0)
            elif not prepare(run):
                return False
            else:
                self.launcher.start(run)
                self._running[run.name] = _Running(trial, run)
        except (ValueError, OSError) as error:
            self._fail(trial, str(error))
        return True

    def _prune_the_worse(self) -> None:
        for running in self._running.values():
            scores = scores_of(running.run.path)
            if len(scores) == running.tests or running.pruned:
                continue
            running.tests = len(scores)
            if self.study.report(running.trial, scores):
                running.pruned = True
                self.launcher.stop_run(running.run)

    def _settle(self, running: _Running, exit_code: int) -> None:
        """Decide what becomes of a trial whose process has ended."""
        trial, run = running.trial, running.run
        scores = scores_of(run.path)
        if RunFolder(run.path).is_finished():
            if not scores:
                self._fail(trial, "no game ended in its tests, so it has no score")
                return
            self.study.report(trial, scores)
            self.study.finish(trial, scores[-1])
            self.say(f"{run.name}: score {scores[-1]:.4g} with {describe(trial)}")
            return
        if running.pruned:
            self.study.prune(trial)
            self.say(f"{run.name}: pruned at test {len(scores)}, score {scores[-1]:.4g}, with {describe(trial)}")
        elif self.stop.count:
            return  # it goes on when the search does
        else:
            self._fail(trial, f"{describe_end(run, exit_code)} (its log: {run.log})")
        self._drop_replay(run)

    def _drop_replay(self, run: TrialRun) -> None:
        """Free the disk of a trial that ended early; a finished run does so itself."""
        folder = RunFolder(run.path)
        if run.config.keep_replay or not folder.checkpoints.exists():
            return
        try:
            with folder.lock():
                CheckpointStore(folder.checkpoints, identity(run.config)).drop_replay()
        except (OSError, UserError) as error:
            self.say(f"warning: the replay of {run.name} is not dropped: {error}")

    def _fail(self, trial: Trial, message: str) -> None:
        self.study.fail(trial, message)
        self.say(f"{trial_name(trial.number)}: failed with {describe(trial)}: {message}")


def describe(trial: Trial) -> str:
    """The values of a trial in a line; numbers rounded to be read."""
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in trial.values.items()
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())
