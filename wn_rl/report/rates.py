"""The learning rate at which each method is compared, and what it was chosen from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wn_rl.arms import Arm
from wn_rl.errors import UserError
from wn_rl.report.comparison import Comparison, differing_settings, method_order, rate_of


@dataclass(frozen=True)
class Choice:
    """The learning rate of each method, one for all games."""

    arms: Mapping[Arm, Arm]
    """Methods that had runs to choose on, each with its rate."""
    basis: Literal["single", "same runs", "other runs"]
    """single: no method had two rates to choose from."""
    chosen_on: Comparison


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
    single = {arm.method: arm for arm in comparison.arms if len(comparison.rates(arm.method)) == 1}
    if same_suite:
        best = {**single, **best_arms(same_suite[0])}
        return Choice(
            {method: best[method] for method in sorted(best, key=method_order)}, "other runs", same_suite[0]
        )
    basis: Literal["single", "same runs"] = "single" if len(single) == len(comparison.methods) else "same runs"
    return Choice(best_arms(comparison), basis, comparison)


def best_arms(comparison: Comparison) -> dict[Arm, Arm]:
    """Each method at its best rate; of equal ones at the lowest.

    A rate that lacks one of the method's games cannot win, and a rate at which a run failed wins only if there
    is no other.
    """
    means = {arm: mean for arm, mean in scaled_means(comparison).items() if not math.isnan(mean)}
    best = {}
    for method in comparison.methods:
        complete = [arm for arm in means if arm.method == method]
        eligible = [arm for arm in complete if not comparison.num_left_out(arm, status="failed")] or complete
        if eligible:
            best[method] = max(eligible, key=lambda arm: (means[arm], -rate_of(arm)))
    return best


def scaled_means(comparison: Comparison) -> dict[Arm, float]:
    """Mean over games of each arm's mean maximum score, scaled to 0 for a game's worst arm and 1 for its best.

    NaN for an arm that lacks one of its method's games.
    """
    scaled = {game: _scaled_scores(comparison, game) for game in comparison.games}
    found = {}
    for arm in comparison.arms:
        games = [game for game in scaled if any(other.method == arm.method for other in scaled[game])]
        found[arm] = float(np.mean([scaled[game].get(arm, math.nan) for game in games]))
    return found


def _scaled_scores(comparison: Comparison, game: str) -> dict[Arm, float]:
    """Of each arm that has runs of the game."""
    means = {
        arm: float(np.nanmax(comparison.scores(arm, game), axis=1).mean())
        for arm in comparison.arms
        if comparison.runs_of(arm, game)
    }
    low, high = min(means.values()), max(means.values())
    return {arm: (mean - low) / (high - low) if high > low else 1.0 for arm, mean in means.items()}
