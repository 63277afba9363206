"""Which runs may be compared: same suite, same settings but for the arm, all trained as long."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wn_rl.config import METHOD_OPTIONS
from wn_rl.errors import UserError
from wn_rl.registry import PARAMETERIZATIONS
from wn_rl.report.records import Arm, LeftOut, Method, Run
from wn_rl.stats import FloatArray

_BASELINE = "normal"
_OF_THE_ARM = {"parameterization", "optimizer.learning_rate", *(f"network.{name}" for name in METHOD_OPTIONS)}
_OF_THE_RUN = {"game", "seed", "steps"}
_WITHOUT_EFFECT_ON_SCORES = {
    *("preset", "device", "track", "run_name", "group", "log_period", "checkpoint_period", "keep_replay"),
    *("torch_threads", "environment.emulator_threads", "environment.processes"),
    *("evaluation.video_period", "evaluation.held_out_states"),
}


@dataclass(frozen=True)
class Comparison:
    """Runs of one suite that differ in game, arm and seed alone, each with its scores up to one step."""

    name: str
    """E.g. "minatar, 300,000 steps"; no two comparisons of a report share it."""
    suite: str
    horizon: int
    """Agent steps: each run made at least so many, and nothing later counts."""
    settings: Mapping[str, Any]
    """What the runs share, names with dots, e.g. "learning.batch_size"."""
    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Runs that would belong here but are not in the numbers."""

    @property
    def test_period(self) -> int:
        """Agent steps of one epoch."""
        return int(self.settings["evaluation.period"])

    @property
    def num_epochs(self) -> int:
        """Tests up to the horizon."""
        return self.horizon // self.test_period

    @cached_property
    def games(self) -> list[str]:
        return sorted({run.game for run in self.runs})

    @cached_property
    def arms(self) -> list[Arm]:
        """Baseline first, then in the order of the registry; by rate within a method."""
        return sorted({run.arm for run in self.runs}, key=lambda arm: (method_order(arm.method), arm.rate))

    @cached_property
    def methods(self) -> list[Method]:
        return list(dict.fromkeys(arm.method for arm in self.arms))

    @cached_property
    def baseline(self) -> Method:
        """What every other method is compared with: normal layers, if there are any; of several, the plainest."""
        found = [method for method in self.methods if method.parameterization == _BASELINE]
        return min(found, key=lambda method: len(method.options), default=Method(_BASELINE))

    def rates(self, method: Method) -> list[float]:
        """Learning rates at which the method was run, in any game."""
        return [arm.rate for arm in self.arms if arm.method == method]

    def runs_of(self, arm: Arm, game: str) -> list[Run]:
        """By seed."""
        found = [run for run in self.runs if run.arm == arm and run.game == game]
        return sorted(found, key=lambda run: run.seed)

    def scores(self, arm: Arm, game: str) -> FloatArray:
        """Mean raw return of each test: float [seeds, epochs], NaN where one is missing."""
        runs = self.runs_of(arm, game)
        return np.array([run.scores(self.num_epochs) for run in runs]).reshape(len(runs), self.num_epochs)

    def has(self, arm: Arm, game: str) -> bool:
        """Whether there is a run."""
        return bool(self.runs_of(arm, game))

    def num_left_out(self, arm: Arm, game: str | None = None, status: str | None = None) -> int:
        """Runs of the arm that are not in the numbers: of one game or all, with one status or any."""
        runs = [entry.run for entry in self.left_out if entry.run is not None and entry.run.arm == arm]
        return sum(game in (None, run.game) and status in (None, run.status) for run in runs)


def method_order(method: Method) -> tuple[int, str]:
    """Sorts methods as the registry of parameterizations has them, those of another version last."""
    names = list(PARAMETERIZATIONS)
    known = method.parameterization in names
    return (names.index(method.parameterization) if known else len(names)), method.label


@dataclass
class _Pool:
    """Runs of one suite, horizon and settings while they are sorted."""

    runs: dict[tuple[str, Arm, int], Run] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def compare(runs: Iterable[Run], until: int | None = None) -> tuple[list[Comparison], list[LeftOut]]:
    """Sort runs into comparisons; runs that are in none are named.

    until: agent steps; every run that came so far counts, up to there. None: every run that reached the last
    of its own steps, and runs of different length are different comparisons.

    Raises:
        UserError: nothing remains.
    """
    pools: dict[tuple[str, int, str], _Pool] = {}
    for run in runs:
        horizon = until or run.steps
        pool = pools.setdefault((run.suite, horizon, json.dumps(shared_settings(run), sort_keys=True)), _Pool())
        identity = (run.game, run.arm, run.seed)
        obstacle = _obstacle(run, horizon, pool.runs.get(identity))
        if obstacle:
            pool.left_out.append(LeftOut(run.folder, obstacle, run))
        else:
            pool.runs[identity] = run
    left_out = [entry for pool in pools.values() for entry in pool.left_out]
    comparisons: list[Comparison] = []
    for (suite, horizon, settings), pool in sorted(pools.items()):
        if pool.runs:
            name = _new_name(f"{suite}, {horizon:,} steps", [other.name for other in comparisons])
            runs_in, runs_out = tuple(pool.runs.values()), tuple(pool.left_out)
            comparisons.append(Comparison(name, suite, horizon, json.loads(settings), runs_in, runs_out))
    if not comparisons:
        raise UserError(f"no run can be compared: {left_out[0].folder}: {left_out[0].reason}")
    return comparisons, left_out


def _new_name(name: str, taken: Sequence[str]) -> str:
    """The name, told apart from those before it."""
    number = sum(other == name or other.startswith(f"{name}, settings ") for other in taken) + 1
    return f"{name}, settings {number}" if number > 1 else name


def _obstacle(run: Run, horizon: int, twin: Run | None) -> str | None:
    """Why a run cannot be in a comparison; None if it can."""
    if not run.reached(horizon):
        words = f"{run.status} at step {run.last_step:,} of {horizon:,}"
        return f"{words}: {run.message}" if run.message else words
    epochs = horizon // run.test_period if run.test_period else 0
    if np.isnan(run.scores(epochs)).all():
        return f"has no test score up to step {horizon:,}"
    if twin is not None:
        return f"has the settings and the seed of {twin.folder}, which is in"
    return None


def shared_settings(run: Run) -> dict[str, Any]:
    """Settings that must be equal for two runs to be compared, names with dots."""
    apart = _OF_THE_ARM | _OF_THE_RUN | _WITHOUT_EFFECT_ON_SCORES
    return {name: value for name, value in flat_settings(run.config).items() if name not in apart}


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dots in their names: {"learning": {"discount": 1}} to {"learning.discount": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        found |= flat_settings(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def differing_settings(comparisons: Sequence[Comparison]) -> list[str]:
    """Names of what is not the same in all comparisons."""
    described = [{**comparison.settings, "steps": comparison.horizon} for comparison in comparisons]
    names = dict.fromkeys(name for settings in described for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in described}) > 1]
