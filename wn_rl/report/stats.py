"""Statistics of few seeds: means, differences and aggregates over games, each with a bootstrap interval.

The scores of one arm in one game are a float array [seeds]; those of an arm over games are one such array for
each game, a `Group`. Nothing here is paired: runs that share a seed diverge after warm-up, so that seed 1 of one
arm says nothing about seed 1 of another.

Intervals are percentile bootstrap intervals (Efron 1979), stratified: seeds are drawn with replacement within
each arm and game, never across. With few seeds they are too narrow (`COVERAGE`). Probability of improvement:
Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Group = Sequence[FloatArray]
Statistic = Callable[..., FloatArray]
"""A number of one or two groups: each a sequence of arrays [..., seeds], one for each game, to [...]."""

MIN_SEEDS = 3
"""With fewer seeds there is no interval: two runs say too little about their spread."""
NUM_RESAMPLES = 10_000
COVERAGE = {3: 0.79, 5: 0.87, 10: 0.91}
"""By seeds of each arm: how often such an interval contains the true difference of means, for normally distributed
scores (tests/report/test_stats.py measures it)."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; low and high are None if there were too few seeds for one."""

    point: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int | None:
        """1 or -1 if the whole interval lies above or below zero, 0 if it contains zero.

        None without an interval, or if it is one point other than zero: a few runs that agree to the last digit
        do not make it certain.
        """
        if self.low is None or self.high is None or self.low == self.high != 0:
            return None
        return int(self.low > 0) - int(self.high < 0)


def bootstrap(
    statistic: Statistic, *groups: Group, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """The statistic of the groups, with its percentile interval if every game has MIN_SEEDS seeds.

    Every game needs at least one score, and all scores must be finite. Numbers are rounded, far below what scores
    mean, so that equal scores tie.
    """
    arrays = [array for group in groups for array in group]
    largest = max(float(np.abs(array).max()) for array in arrays)
    decimals = max(9, 12 - math.ceil(math.log10(largest or 1.0)))
    point = round(float(statistic(*groups)), decimals)
    if min(array.size for array in arrays) < MIN_SEEDS:
        return Estimate(point)
    resampled = [
        [array[rng.integers(array.size, size=(num_resamples, array.size))] for array in group] for group in groups
    ]
    low, high = np.quantile(statistic(*resampled), (0.025, 0.975))
    return Estimate(point, round(float(low), decimals), round(float(high), decimals))


def mean(group: Group) -> FloatArray:
    """Mean over seeds, then over games: [..., seeds] for each game to [...]."""
    return np.asarray(np.mean([scores.mean(-1) for scores in group], axis=0))


def difference(treatment: Group, baseline: Group) -> FloatArray:
    """The mean of a treatment less that of a baseline."""
    return mean(treatment) - mean(baseline)


def probability_of_improvement(treatment: Group, baseline: Group) -> FloatArray:
    """The probability that a run of the treatment scores more than one of the baseline; a tie counts half.

    In a game this is the Mann-Whitney U statistic over the number of pairs; then the mean over games.
    """
    signs = [np.sign(x[..., :, None] - y[..., None, :]) for x, y in zip(treatment, baseline, strict=True)]
    return np.asarray(np.mean([(0.5 * each + 0.5).mean((-2, -1)) for each in signs], axis=0))


def mean_curve(scores: FloatArray, rng: np.random.Generator) -> list[Estimate]:
    """Mean of curves [seeds, evaluations] at each evaluation, over the runs with a score there; NaN if none."""
    known = [column[~np.isnan(column)] for column in scores.T]
    return [bootstrap(mean, [column], rng=rng) if column.size else Estimate(math.nan) for column in known]
