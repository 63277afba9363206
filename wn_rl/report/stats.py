"""Statistics of few seeds: means, differences and aggregates over games, each with a bootstrap interval.

The scores of one arm in one game are a float array [seeds]; those of an arm over games are one such array a
game, a `Group`. Nothing here is paired: runs that share a seed part ways after warm-up, so that seed 1 of one
arm says nothing about seed 1 of another.

Intervals are percentile bootstrap intervals (Efron 1979), stratified: seeds are drawn with replacement within
each arm and game, never across. With few seeds they are too narrow (`COVERAGE`). Interquartile mean and
probability of improvement: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Group = Sequence[FloatArray]
Statistic = Callable[..., FloatArray]
"""A number of groups: each a sequence of arrays [..., seeds], one a game, to [...]."""

MIN_SEEDS = 3
"""Seeds below which there is no interval: two draws have nothing to say about their spread."""
NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
COVERAGE = {3: 0.79, 5: 0.87, 10: 0.91}
"""By seeds an arm: how often such an interval of a difference of means holds the truth, for normally distributed
scores (tests/report/test_stats.py measures it)."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; low and high are None where there were too few seeds for one."""

    point: float
    low: float | None = None
    high: float | None = None

    def side_of(self, value: float) -> int | None:
        """1 or -1 where the whole interval lies above or below the value, 0 where it holds it.

        None without an interval, or where it is a point beside the value: that few runs agree to the last digit
        does not make them certain.
        """
        if self.low is None or self.high is None or self.low == self.high != value:
            return None
        return int(self.low > value) - int(self.high < value)


def bootstrap(
    statistic: Statistic, *groups: Group, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """The statistic of the groups, with its percentile interval if every game has MIN_SEEDS seeds.

    Numbers are rounded, far below what scores mean, so that equal scores tie.

    Raises:
        ValueError: a group or one of its games has no score, or a score is not finite.
    """
    arrays = [array for group in groups for array in group]
    if not arrays or any(array.ndim != 1 or not array.size or not np.isfinite(array).all() for array in arrays):
        raise ValueError("every game needs scores [seeds], all of them finite")
    largest = max(float(np.abs(array).max()) for array in arrays)
    decimals = max(9, 12 - math.ceil(math.log10(largest or 1.0)))
    point = round(float(statistic(*groups)), decimals)
    if min(array.size for array in arrays) < MIN_SEEDS:
        return Estimate(point)
    resampled = [[_resample(array, rng, num_resamples) for array in group] for group in groups]
    low, high = np.quantile(statistic(*resampled), _TAILS)
    return Estimate(point, round(float(low), decimals), round(float(high), decimals))


_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _resample(scores: FloatArray, rng: np.random.Generator, num_resamples: int) -> FloatArray:
    """[seeds] to [num_resamples, seeds], each row drawn with replacement."""
    drawn: FloatArray = scores[rng.integers(scores.size, size=(num_resamples, scores.size))]
    return drawn


def mean(group: Group) -> FloatArray:
    """Mean over seeds, then over games: [..., seeds] a game to [...]."""
    means: FloatArray = np.mean([scores.mean(-1) for scores in group], axis=0)
    return means


def difference_of_means(treatment: Group, baseline: Group) -> FloatArray:
    """Mean of the treatment less that of the baseline, each over seeds, then over games."""
    return mean(treatment) - mean(baseline)


def interquartile_mean(group: Group) -> FloatArray:
    """Mean of the middle half of all scores, games together: a quarter of the runs is cut off at each end.

    Where a quarter is no whole number of runs it is rounded down, as by scipy.stats.trim_mean and rliable. The
    scores of the games must be on one scale.
    """
    scores = np.sort(np.concatenate(list(group), axis=-1), axis=-1)
    cut = scores.shape[-1] // 4
    middle: FloatArray = scores[..., cut : scores.shape[-1] - cut].mean(-1)
    return middle


def difference_of_interquartile_means(treatment: Group, baseline: Group) -> FloatArray:
    """Interquartile mean of the treatment less that of the baseline."""
    return interquartile_mean(treatment) - interquartile_mean(baseline)


def probability_of_improvement(treatment: Group, baseline: Group) -> FloatArray:
    """How likely a run of the treatment scores more than one of the baseline, a tie counting half.

    In a game this is the Mann-Whitney U statistic over the number of pairs; then the mean over games.
    """
    wins: FloatArray = np.mean([_wins(x, y) for x, y in zip(treatment, baseline, strict=True)], axis=0)
    return wins


def _wins(x: FloatArray, y: FloatArray) -> FloatArray:
    """[..., m] and [..., n] to [...]: the share of the pairs that x wins."""
    wins: FloatArray = (0.5 * np.sign(x[..., :, None] - y[..., None, :]) + 0.5).mean((-2, -1))
    return wins


def normalize(group: Group, low: Sequence[float], high: Sequence[float]) -> list[FloatArray]:
    """Scores of each game on the scale on which its low is 0 and its high is 1.

    Raises:
        ValueError: the high of a game is not above its low, so that there is no such scale.
    """
    if any(not bottom < top for bottom, top in zip(low, high, strict=True)):
        raise ValueError("a game's high must be above its low")
    return [(scores - bottom) / (top - bottom) for scores, bottom, top in zip(group, low, high, strict=True)]


def area_under_curve(scores: FloatArray) -> FloatArray:
    """Area under curves [..., evaluations] with evenly spaced evaluations, per interval: the mean height [...].

    By the trapezoidal rule from the first evaluation to the last; a missing one (NaN) between two others is
    bridged by a line. NaN where the first or the last is missing, since that curve's span is shorter.
    """
    curves = scores.reshape(-1, scores.shape[-1])
    areas = np.array([_area(curve) for curve in curves])
    return areas.reshape(scores.shape[:-1])


def _area(curve: FloatArray) -> float:
    if np.isnan(curve[[0, -1]]).any():
        return float("nan")
    known = np.flatnonzero(~np.isnan(curve))
    if known.size == 1:
        return float(curve[0])
    return float(np.trapezoid(curve[known], known) / (curve.size - 1))


def mean_curve(scores: FloatArray, rng: np.random.Generator) -> list[Estimate]:
    """Mean of curves [seeds, evaluations] at each evaluation, over the runs that have a score there.

    The point is NaN where no run has one.
    """
    known = [column[~np.isnan(column)] for column in scores.T]
    return [bootstrap(mean, [column], rng=rng) if column.size else Estimate(math.nan) for column in known]
