"""Which runs may be compared: same suite, same settings but for the arm, all trained as long."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from wn_rl.config import choices
from wn_rl.errors import UserError
from wn_rl.report.records import Arm, LeftOut, Method, Run
from wn_rl.stats import FloatArray

BASELINE = Method("normal")
"""What every other method is compared with."""

_OF_THE_ARM = {"parameterization", "optimizer.learning_rate", "network.log_scale", "network.max_v_norm"}
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
        return sorted({run.arm for run in self.runs}, key=lambda arm: (_rank(arm.method), arm.rate))

    @cached_property
    def methods(self) -> list[Method]:
        return list(dict.fromkeys(arm.method for arm in self.arms))

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


def _rank(method: Method) -> tuple[int, str]:
    """Sorts methods as the registry has them, those of another version last."""
    names = choices("parameterization")
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


@dataclass(frozen=True)
class Choice:
    """The learning rate of each method, one for all games."""

    rates: Mapping[Method, float]
    basis: Literal["single", "same runs", "other runs"]
    """single: no method had two rates to choose from."""
    chosen_on: Comparison

    def arm(self, method: Method) -> Arm | None:
        """The method at its rate; None for a method that had no runs to choose on."""
        return Arm(method, self.rates[method]) if method in self.rates else None


def choose_rates(comparison: Comparison, others: Sequence[Comparison]) -> Choice:
    """The rates by the greatest test scores: of the suite's runs among `others`, else of these runs.

    A method that is not among the others has its rate if it was run here at one rate only.

    Raises:
        UserError: the others are of more than one kind, so that they cannot be pooled.
    """
    same_suite = [other for other in others if other.suite == comparison.suite]
    if len(same_suite) > 1:
        raise UserError(
            f"the {comparison.suite} runs to choose rates from differ in more than game, arm and seed "
            f"({', '.join(differing_settings(same_suite))}): name those of one kind, or cut them with --until"
        )
    every_rate = {method: comparison.rates(method) for method in comparison.methods}
    single = {method: rates[0] for method, rates in every_rate.items() if len(rates) == 1}
    if same_suite:
        best = {**single, **best_rates(same_suite[0])}
        return Choice({method: best[method] for method in sorted(best, key=_rank)}, "other runs", same_suite[0])
    nothing_to_choose = len(single) == len(comparison.methods)
    return Choice(best_rates(comparison), "single" if nothing_to_choose else "same runs", comparison)


def differing_settings(comparisons: Sequence[Comparison]) -> list[str]:
    """Names of what is not the same in all comparisons."""
    described = [{**comparison.settings, "steps": comparison.horizon} for comparison in comparisons]
    names = dict.fromkeys(name for settings in described for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in described}) > 1]


def best_rates(comparison: Comparison) -> dict[Method, float]:
    """Of each method the rate of its best candidate, of equal ones the lowest.

    A rate that lacks one of the method's games cannot win, and one at which a run failed only if there is no
    other.
    """
    every = candidates(comparison)
    best = {}
    for method in comparison.methods:
        complete = [c for c in every if c.arm.method == method and not math.isnan(c.mean)]
        eligible = [c for c in complete if not c.num_failed] or complete
        if eligible:
            best[method] = max(eligible, key=lambda candidate: (candidate.mean, -candidate.arm.rate)).arm.rate
    return best


@dataclass(frozen=True)
class Candidate:
    """An arm, as one of its method's rates to choose from."""

    arm: Arm
    mean: float
    """Over the method's games: mean maximum test score, 0 for the game's worst arm and 1 for its best. NaN: it
    lacks one of the games."""
    num_failed: int
    """Runs that failed."""


def candidates(comparison: Comparison) -> list[Candidate]:
    """Every arm, in the comparison's order."""
    scaled = {game: _scaled_scores(comparison, game) for game in comparison.games}
    found = []
    for arm in comparison.arms:
        games = [game for game in scaled if any(other.method == arm.method for other in scaled[game])]
        complete = all(arm in scaled[game] for game in games)
        mean = float(np.mean([scaled[game][arm] for game in games])) if complete else math.nan
        found.append(Candidate(arm, mean, comparison.num_left_out(arm, status="failed")))
    return found


def _scaled_scores(comparison: Comparison, game: str) -> dict[Arm, float]:
    """Mean maximum test score of each arm that has runs, 0 for the worst and 1 for the best."""
    means = {
        arm: float(np.nanmax(comparison.scores(arm, game), axis=1).mean())
        for arm in comparison.arms
        if comparison.has(arm, game)
    }
    low, high = min(means.values()), max(means.values())
    return {arm: (mean - low) / (high - low) if high > low else 1.0 for arm, mean in means.items()}
