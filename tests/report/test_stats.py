import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wn_rl.report import stats
from wn_rl.report.stats import Estimate, bootstrap

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8).map(np.array)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("treatment", "baseline", "estimate", "sign"),
    [
        ([3.0, 4, 5], [1.0, 1, 1], Estimate(3.0, 2.0, 4.0), 1),  # the 27 resamples: all 3 in 1/27 > 2.5% of them
        ([3.0, 5.0], np.arange(9.0), Estimate(0.0), None),  # two seeds have no interval
        ([2.0] * 5, [2.0] * 5, Estimate(0.0, 0.0, 0.0), 0),
        ([2.0] * 3, [1.0] * 3, Estimate(1.0, 1.0, 1.0), None),  # that runs agree to the last digit proves nothing
        *[([0.1 * scale] * 3, [0.1 * scale] * 7, Estimate(0.0, 0.0, 0.0), 0) for scale in (1e-6, 1.0, 1e6)],
    ],
)
def test_differences_by_hand(
    treatment: list[float], baseline: list[float], estimate: Estimate, sign: int | None
) -> None:
    found = bootstrap(stats.difference, [np.array(treatment)], [np.array(baseline)], rng=rng())
    assert (found, found.sign) == (estimate, sign)


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 1, 1), (-1, -0.1, -1), (-1, 1, 0), (0.0, 1, 0), (-1, 0.0, 0)]
)
def test_an_interval_that_ends_at_zero_holds_it(low: float, high: float, side: int) -> None:
    assert Estimate(0.5, low, high).sign == side


def test_intervals_are_those_of_scipy() -> None:
    x, y = rng(1).normal(1, 1, 12), rng(2).normal(0, 2, 9)
    found = bootstrap(stats.difference, [x], [y], rng=rng(), num_resamples=50_000)
    options = {"method": "percentile", "n_resamples": 50_000, "rng": rng(5)}
    theirs = scipy.stats.bootstrap((x, y), lambda a, b, axis: a.mean(axis) - b.mean(axis), **options)
    theirs = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_intervals_repeat_with_the_generator_and_leave_the_global_one_alone() -> None:
    groups = [rng(1).normal(size=5)], [rng(2).normal(size=5)]
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    once, again, other = (bootstrap(stats.difference, *groups, rng=rng(seed)) for seed in (3, 3, 4))
    assert once == again != other
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_games_are_strata() -> None:
    """Two games of constant scores, far apart: drawn within games, nothing varies."""
    games = [np.full(4, 1.0), np.full(4, 100.0)]
    assert bootstrap(stats.mean, games, rng=rng()) == Estimate(50.5, 50.5, 50.5)


def test_a_mean_over_games_weighs_games_alike() -> None:
    assert stats.mean([np.array([1.0, 3.0]), np.array([10.0, 10, 10, 10])]) == 6.0


@settings(deadline=None)
@given(SCORES, SCORES)
def test_the_probability_of_improvement_is_mann_whitneys_u(x: np.ndarray, y: np.ndarray) -> None:
    assume(np.ptp([*x, *y]))
    u = scipy.stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).statistic
    assert stats.probability_of_improvement([x], [y]) == pytest.approx(u / (x.size * y.size))


def test_the_probability_of_improvement_over_games_is_their_mean_and_a_tie_counts_half() -> None:
    x, y = [np.array([2.0, 2]), np.array([1.0])], [np.array([1.0, 1]), np.array([1.0])]
    assert stats.probability_of_improvement(x, y) == (1 + 0.5) / 2


def test_statistics_work_along_the_last_axis() -> None:
    x, y = rng(1).normal(size=(7, 5)), rng(2).normal(size=(7, 4))
    for statistic in (stats.difference, stats.probability_of_improvement):
        rows = [statistic([x[row]], [y[row]]) for row in range(7)]
        np.testing.assert_allclose(statistic([x], [y]), rows)


def test_a_mean_curve_with_missing_evaluations() -> None:
    scores = np.array([[1.0, 4, np.nan, np.nan], [2, 4, 1, np.nan], [3, 4, 2, np.nan]])
    first, second, third, fourth = stats.mean_curve(scores, rng())
    assert (first, second) == (Estimate(2, 1, 3), Estimate(4, 4, 4))
    assert third == Estimate(1.5)  # of two runs
    assert np.isnan(fourth.point)


def test_an_evaluation_of_a_curve_has_the_interval_of_its_scores() -> None:
    scores = rng(1).normal(size=(10, 3))
    for column, estimate in zip(scores.T, stats.mean_curve(scores, rng(2)), strict=True):
        alone = bootstrap(stats.mean, [column], rng=rng(3))
        assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high), abs=0.03)


@pytest.mark.parametrize(("seeds", "stated"), stats.COVERAGE.items())
def test_intervals_hold_the_truth_as_often_as_the_documentation_says(seeds: int, stated: float) -> None:
    draws = rng(seeds)
    groups = [([draws.normal(size=seeds)], [draws.normal(size=seeds)]) for _ in range(1000)]
    held = [bootstrap(stats.difference, *pair, rng=draws, num_resamples=1000).sign == 0 for pair in groups]
    assert np.mean(held) == pytest.approx(stated, abs=0.035)  # two and a half standard errors
