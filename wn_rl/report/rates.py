"""The learning rate of each method: which one it is compared at, and what it was chosen from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wn_rl.errors import UserError
from wn_rl.report.comparison import Comparison, differing_settings, method_order
from wn_rl.report.records import Arm, Method


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
            f"({', '.join(differing_settings(same_suite))}): name those of one kind"
        )
    every_rate = {method: comparison.rates(method) for method in comparison.methods}
    single = {method: rates[0] for method, rates in every_rate.items() if len(rates) == 1}
    if same_suite:
        best = {**single, **best_rates(same_suite[0])}
        return Choice(
            {method: best[method] for method in sorted(best, key=method_order)}, "other runs", same_suite[0]
        )
    nothing_to_choose = len(single) == len(comparison.methods)
    return Choice(best_rates(comparison), "single" if nothing_to_choose else "same runs", comparison)


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
