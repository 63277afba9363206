"""Which runs may be compared, as they differ only in game, arm and seed; and the learning rate of each method."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from wn_rl.compare.arms import Arm
from wn_rl.config import Role, names_of
from wn_rl.errors import UserError
from wn_rl.registry import PARAMETERIZATIONS
from wn_rl.report.read import LeftOut, Run
from wn_rl.report.stats import FloatArray


@dataclass(frozen=True)
class Comparison:
    """Runs of one suite that differ only in game, arm and seed, each with its scores up to one step."""

    name: str
    """E.g. "minatar, 300,000 steps"; the names in a report are unique."""
    suite: str
    horizon: int
    """Agent steps: every run made at least this many, and nothing later counts."""
    settings: Mapping[str, Any]
    """What the runs share, names with dots, e.g. "learning.batch_size"."""
    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Runs of this kind that are not in the numbers."""

    @property
    def evaluation_period(self) -> int:
        """Agent steps of one epoch."""
        return int(self.settings["evaluation.period"])

    @property
    def num_epochs(self) -> int:
        """Evaluations up to the horizon."""
        return self.horizon // self.evaluation_period

    @cached_property
    def games(self) -> list[str]:
        return sorted({run.game for run in self.runs})

    @cached_property
    def arms(self) -> list[Arm]:
        """In the order of the registry, unknown ones last, by learning rate within a method."""
        names = [*PARAMETERIZATIONS, *sorted({run.arm.parameterization for run in self.runs})]
        arms = {run.arm for run in self.runs}
        return sorted(arms, key=lambda arm: (names.index(arm.parameterization), arm.method.label, rate_of(arm)))

    @cached_property
    def methods(self) -> list[Arm]:
        """Arms without their learning rates."""
        return list(dict.fromkeys(arm.method for arm in self.arms))

    @cached_property
    def baseline(self) -> Arm:
        """The method that the others are compared with: of normal layers, those with the fewest options."""
        normal = [method for method in self.methods if method.parameterization == "normal"]
        return min(normal, key=lambda method: len(method.options), default=Arm("normal"))

    def runs_of(self, arm: Arm, game: str) -> list[Run]:
        """By seed; empty without runs."""
        runs = [run for run in self.runs if (run.arm, run.game) == (arm, game)]
        return sorted(runs, key=lambda run: run.seed)

    def scores(self, arm: Arm, game: str) -> FloatArray:
        """Mean raw return of each evaluation: float [seeds, epochs], NaN where one is missing."""
        runs = self.runs_of(arm, game)
        return np.array([run.scores(self.num_epochs) for run in runs]).reshape(len(runs), self.num_epochs)


def rate_of(arm: Arm) -> float:
    """The learning rate of a finished run's arm, which always has one."""
    assert arm.learning_rate is not None
    return arm.learning_rate


def compare(runs: Iterable[Run], until: int | None = None) -> tuple[list[Comparison], list[LeftOut]]:
    """Sort runs into comparisons. Returns those, and the runs that are in none of them.

    until: agent steps; every run that came so far counts, up to there. None: every run that reached its own last
    step, and runs of different length are different comparisons.

    Raises:
        UserError: nothing remains.
    """
    free = names_of(Role.METHOD, Role.RUN, Role.CIRCUMSTANCE, Role.RECORD)
    kinds: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        shared = {name: value for name, value in run.settings.items() if name not in free}
        settings = json.dumps(shared, sort_keys=True)
        kinds.setdefault((run.suite, until or run.steps, settings), []).append(run)
    comparisons: list[Comparison] = []
    left_out: list[LeftOut] = []
    for (suite, horizon, settings), of_kind in sorted(kinds.items(), key=lambda kind: kind[0]):
        runs_in, runs_out = _fit_and_unfit(of_kind, horizon)
        left_out += runs_out
        if runs_in:
            twins = sum((other.suite, other.horizon) == (suite, horizon) for other in comparisons)
            name = f"{suite}, {horizon:,} steps" + (f", settings {twins + 1}" if twins else "")
            comparisons.append(Comparison(name, suite, horizon, json.loads(settings), runs_in, runs_out))
    if not comparisons:
        raise UserError(f"none of the runs can be compared: {left_out[0].folder}: {left_out[0].reason}")
    return comparisons, left_out


def _fit_and_unfit(runs: Sequence[Run], horizon: int) -> tuple[tuple[Run, ...], tuple[LeftOut, ...]]:
    fit: dict[tuple[str, Arm, int], Run] = {}
    unfit = []
    for run in runs:
        twin = fit.get((run.game, run.arm, run.seed))
        if not run.reached(horizon):
            message = f": {run.status.message}" if run.status.message else ""
            reason = f"{run.status.status} at step {run.last_step:,} of {horizon:,}{message}"
        elif np.isnan(run.scores(run.epochs_until(horizon))).all():
            reason = f"has no evaluation score up to step {horizon:,}"
        elif twin:
            reason = f"has the settings and the seed of {twin.folder}, which is in the numbers"
        else:
            fit[run.game, run.arm, run.seed] = run
            continue
        unfit.append(LeftOut(run.folder, reason, run))
    return tuple(fit.values()), tuple(unfit)


def differing_settings(comparisons: Sequence[Comparison]) -> list[str]:
    """Names of what is not the same in all comparisons."""
    described = [{**comparison.settings, "steps": comparison.horizon} for comparison in comparisons]
    names = dict.fromkeys(name for settings in described for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in described}) > 1]


@dataclass(frozen=True)
class Choice:
    """The learning rate of each method, one for all games."""

    arms: Mapping[Arm, Arm]
    """Methods that had runs to choose on, each with its rate."""
    chosen_on: Comparison | None
    """These runs or others; None if no method had two rates to choose from."""


def choose_rates(comparison: Comparison, others: Sequence[Comparison]) -> Choice:
    """The rates with the highest evaluation scores, in the suite's runs among `others` or else in these runs.

    A method that is not among the others has its rate if it was run here at one rate only.

    Raises:
        UserError: the others are of more than one kind, so that they cannot be pooled.
    """
    same_suite = [other for other in others if other.suite == comparison.suite]
    if len(same_suite) > 1:
        raise UserError(
            f"the {comparison.suite} runs to choose rates from differ in more than game, arm and seed "
            f"({', '.join(differing_settings(same_suite))}): name runs of one kind"
        )
    if same_suite:
        best = best_arms(same_suite[0])
        rates = Counter(arm.method for arm in comparison.arms)
        fixed = {arm.method: arm for arm in comparison.arms if rates[arm.method] == 1 and arm.method not in best}
        return Choice(best | fixed, same_suite[0])
    is_choice = len(comparison.arms) > len(comparison.methods)
    return Choice(best_arms(comparison), comparison if is_choice else None)


def best_arms(comparison: Comparison) -> dict[Arm, Arm]:
    """Each method at its best rate; of equal ones at the lowest.

    A rate that lacks one of the method's games cannot win, and a rate at which a run failed wins only if there
    is no other.
    """
    failed = {each.run.arm for each in comparison.left_out if each.run and each.run.status.status == "failed"}
    means = scaled_means(comparison)
    by_method = groupby([arm for arm in means if not math.isnan(means[arm])], key=lambda arm: arm.method)
    return {
        method: max(arms, key=lambda arm: (arm not in failed, means[arm], -rate_of(arm)))
        for method, arms in by_method
    }


def scaled_means(comparison: Comparison) -> dict[Arm, float]:
    """Mean over games of each arm's mean maximum score, scaled to 0 for a game's worst arm and 1 for its best.

    NaN for an arm that lacks one of its method's games.
    """
    scaled: dict[Arm, list[float]] = {arm: [] for arm in comparison.arms}
    for game in comparison.games:
        maxima = {arm: np.nanmax(comparison.scores(arm, game), axis=1) for arm in comparison.arms}
        means = {arm: float(scores.mean()) for arm, scores in maxima.items() if scores.size}
        low, high = min(means.values()), max(means.values())
        means = {arm: (mean - low) / (high - low) if high > low else 1.0 for arm, mean in means.items()}
        for arm in [arm for arm in comparison.arms if any(other.method == arm.method for other in means)]:
            scaled[arm].append(means.get(arm, math.nan))
    return {arm: float(np.mean(values)) for arm, values in scaled.items()}
