from pathlib import Path

import pytest
from report_tools import comparison_of, found, write_arm, write_run

from wn_rl.report.records import Arm, Method
from wn_rl.report.results import References
from wn_rl.report.tables import (
    MISSING,
    difference_table,
    grid_table,
    growth_table,
    over_games_table,
    speed_table,
    spread_tables,
    table_3,
)
from wn_rl.report.traces import norm_curves, speeds
from wn_rl.report.words import NO_INTERVAL
from wn_rl.stats import Estimate

NORMAL = Arm(Method("normal"), 1e-4)
WEIGHT_NORM = Arm(Method("weight_norm"), 1e-4)
REFERENCES = References(
    {"breakout": {"random": 2.0, "human": 12.0, "paper": 400.0}, "seaquest": {"random": 0.0, "human": 100.0}},
    {"paper": "A paper"},
    {"paper": "the paper"},
)


def write_normal(root: Path, curves: list[list[float | None]], **settings: object) -> None:
    write_arm(root, curves, parameterization="normal", **settings)


def write_weight_norm(root: Path, curves: list[list[float | None]], **settings: object) -> None:
    write_arm(root, curves, parameterization="weight_norm", rate=1e-4, **settings)


def test_the_three_scores_of_an_arm_by_hand(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1, 5, 3], [2, 2, 8], [0, 6, 1]])
    findings = found(tmp_path)
    means = {m: findings.score(NORMAL, "breakout", m).mean.point for m in ("maximum", "final", "area")}
    assert means == pytest.approx(
        {"maximum": (5 + 8 + 6) / 3, "final": (3 + 8 + 1) / 3, "area": (3.5 + 3.5 + 3.25) / 3}
    )


def test_the_spread_over_rates_by_hand(tmp_path: Path) -> None:
    """Over the rates that both have: 1e-4 and 3e-4, not the baseline's 1e-3."""
    for rate, normal, weight_norm in ((1e-4, 1, 5), (3e-4, 9, 6)):
        write_normal(tmp_path, [[normal], [normal + 1], [normal + 2]], rate=rate)
        write_arm(tmp_path, [[weight_norm]] * 3, parameterization="weight_norm", rate=rate)
    write_normal(tmp_path, [[70], [70], [70]], rate=1e-3)
    findings = found(tmp_path)
    spread = next(spread for spread in findings.spreads if spread.metric == "maximum")
    assert (spread.game, spread.rates, spread.seeds) == ("breakout", (1e-4, 3e-4), (3, 3, 3, 3))
    assert (spread.treatment.point, spread.baseline.point, spread.difference.point) == (1, 8, -7)
    (table,) = spread_tables(findings)
    row = table.rows[0]
    assert row[:5] == ("Breakout", "maximum", "2", "1.00", "8.00")
    assert row[-1] == "3 seeds"


def test_one_rate_has_no_spread(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1]])
    write_weight_norm(tmp_path, [[2]])
    assert spread_tables(found(tmp_path)) == []


def test_missing_tests_count_for_what_they_can(tmp_path: Path) -> None:
    """Maximum: over the tests that there are. Last test and area: of the runs that have them."""
    write_normal(tmp_path, [[1, None, 3], [None, 2, 2], [4, 6, None]])
    findings = found(tmp_path)
    scores = {m: findings.score(NORMAL, "breakout", m).scores.tolist() for m in ("maximum", "final", "area")}
    assert scores == {"maximum": [3, 2, 6], "final": [3, 2], "area": [2]}
    assert findings.score(NORMAL, "breakout", "final").mean == Estimate(2.5)


def test_a_difference_by_hand_in_numbers_and_in_words(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1, 2], [1, 2], [2, 1]])
    write_weight_norm(tmp_path, [[3, 4], [4, 3], [4, 1]])
    findings = found(tmp_path)
    (contrast,) = findings.own_rates
    assert contrast is findings.equal_rates[0]
    (maximum,) = contrast.of("maximum")
    assert maximum.difference == Estimate(2.0, 2.0, 2.0)
    assert maximum.improvement == Estimate(1.0, 1.0, 1.0)
    rows = difference_table(contrast, ["maximum", "final"]).rows
    assert rows[0] == ("Breakout", "maximum", "4.00 (3)", "2.00 (3)", "+2.00", NO_INTERVAL)
    assert rows[1][-1] == "no difference shown at this many seeds"


def test_ties_show_no_difference(tmp_path: Path) -> None:
    write_normal(tmp_path, [[2.0]] * 4)
    write_weight_norm(tmp_path, [[2.0]] * 4)
    (contrast,) = found(tmp_path).own_rates
    (maximum,) = contrast.of("maximum")
    assert (maximum.difference, maximum.improvement) == (Estimate(0, 0, 0), Estimate(0.5, 0.5, 0.5))
    assert difference_table(contrast, ["maximum"]).rows[0][-2:] == (
        "0.00",
        "no difference shown at this many seeds",
    )


def test_ties_of_unlike_numbers_of_seeds_show_no_difference(tmp_path: Path) -> None:
    """Though the mean of three times 0.1 is not that of four in floating point."""
    write_normal(tmp_path, [[0.1]] * 4)
    write_weight_norm(tmp_path, [[0.1]] * 3)
    (contrast,) = found(tmp_path).own_rates
    assert difference_table(contrast, ["maximum"]).rows[0][-2:] == (
        "0.00",
        "no difference shown at this many seeds",
    )


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1.0]])
    write_weight_norm(tmp_path, [[900.0]])
    (contrast,) = found(tmp_path).own_rates
    assert difference_table(contrast, ["maximum"]).rows[0][-2:] == ("+899", NO_INTERVAL)


def test_over_games_by_hand(tmp_path: Path) -> None:
    for game, scale in (("breakout", 1), ("seaquest", 100)):
        write_normal(tmp_path, [[2.0 * scale]] * 4, game=game)
        write_weight_norm(tmp_path, [[3.0 * scale]] * 4, game=game)
    (contrast,) = found(tmp_path).own_rates
    aggregate = contrast.over_games[0]
    assert aggregate.games == ("breakout", "seaquest")
    assert aggregate.treatment_iqm == Estimate(1.5, 1.5, 1.5)
    assert aggregate.baseline_iqm == Estimate(1, 1, 1)
    assert aggregate.iqm_difference == Estimate(0.5, 0.5, 0.5)
    assert aggregate.improvement == Estimate(1, 1, 1)
    row = over_games_table(contrast).rows[0]
    assert row == ("maximum", "2", "1.50", "1.00", "+0.50", "1.00")  # every resample gives the same: no intervals


def test_published_random_scores_are_the_zero_of_the_scale(tmp_path: Path) -> None:
    for game in ("breakout", "seaquest"):
        write_normal(tmp_path, [[4.0]] * 3, game=game)
        write_weight_norm(tmp_path, [[8.0]] * 3, game=game)
    findings = found(tmp_path, REFERENCES)
    iqm = findings.own_rates[0].over_games[0].treatment_iqm
    assert iqm is not None
    assert iqm.point == pytest.approx(
        2.5
    )  # (8 - 2) / (4 - 2) = 3 and 8 / 4 = 2, three seeds each, one cut at each end
    human = {entry.arm: entry.iqm.point for entry in findings.human if entry.metric == "maximum"}
    assert human == pytest.approx({NORMAL: (0.2 + 0.04) / 2, WEIGHT_NORM: (0.6 + 0.08) / 2})


def test_a_baseline_at_or_below_the_zero_of_the_scale_has_no_aggregate(tmp_path: Path) -> None:
    for game, score in (("breakout", 1.0), ("seaquest", -5.0)):
        write_normal(tmp_path, [[score]] * 3, game=game)
        write_weight_norm(tmp_path, [[2.0]] * 3, game=game)
    aggregate = found(tmp_path).own_rates[0].over_games[0]
    assert (aggregate.treatment_iqm, aggregate.baseline_iqm, aggregate.iqm_difference) == (None, None, None)
    assert aggregate.improvement.point == 1.0
    row = over_games_table(found(tmp_path).own_rates[0]).rows[0]
    assert row == ("maximum", "2", MISSING, MISSING, MISSING, "1.00")


def test_one_game_has_no_aggregate(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1.0]] * 3)
    write_weight_norm(tmp_path, [[2.0]] * 3)
    assert found(tmp_path).own_rates[0].over_games == ()


def test_games_that_one_arm_lacks_are_not_compared(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1.0]] * 3, game="breakout")
    write_normal(tmp_path, [[1.0]] * 3, game="seaquest")
    write_weight_norm(tmp_path, [[2.0]] * 3, game="seaquest")
    (contrast,) = found(tmp_path).own_rates
    assert [game.game for game in contrast.of("maximum")] == ["seaquest"]


def test_own_and_equal_rates_are_two_questions(tmp_path: Path) -> None:
    """Weight norm wins at its own rate against normal at its own; at the equal rate, normal does."""
    write_normal(tmp_path, [[5.0]] * 3, rate=1e-4)
    write_normal(tmp_path, [[6.0]] * 3, rate=3e-4)
    write_arm(tmp_path, [[2.0]] * 3, parameterization="weight_norm", rate=1e-4)
    write_arm(tmp_path, [[9.0]] * 3, parameterization="weight_norm", rate=1e-3)
    findings = found(tmp_path)
    own = [(c.treatment.rate, c.baseline.rate, c.games[0].difference.point) for c in findings.own_rates]
    equal = [(c.treatment.rate, c.baseline.rate, c.games[0].difference.point) for c in findings.equal_rates]
    assert own == [(1e-3, 3e-4, 3.0)]
    assert equal == [(1e-4, 1e-4, -3.0)]


def test_table_3_puts_published_scores_beside_ours_and_marks_what_is_missing(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1.0], [3.0]], game="breakout")
    write_weight_norm(tmp_path, [[2000.0]], game="seaquest")
    table = table_3(found(tmp_path, REFERENCES))
    assert table.header == ("game", "normal at 0.0001", "weight norm at 0.0001", "the paper")
    assert table.rows == (("Breakout", "2.00 (2)", MISSING, "400"), ("Seaquest", MISSING, "2,000 (1)", MISSING))
    assert table_3(found(tmp_path)).header == table.header[:-1]


def test_the_grid_marks_choices_and_counts_what_was_left_out(tmp_path: Path) -> None:
    write_normal(tmp_path, [[1.0]], rate=1e-4)
    write_normal(tmp_path, [[2.0]], rate=3e-4)
    write_run(tmp_path / "f", [], steps=100, status="failed", seed=9)
    assert grid_table(found(tmp_path)).rows == (
        ("normal at 0.0001", "1.00 (1)", "0.00", "1"),
        ("normal at 0.0003 (chosen)", "2.00 (1)", "1.00", "0"),
    )


def test_the_grid_shows_the_numbers_that_rates_are_chosen_by(tmp_path: Path) -> None:
    for game, scores in (("breakout", (1.0, 3.0, 2.0)), ("seaquest", (200.0, 0.0, 150.0))):
        for rate, score in zip((1e-4, 3e-4, 1e-3), scores, strict=True):
            write_normal(tmp_path, [[score]], game=game, rate=rate)
    write_normal(tmp_path, [[9.0]], game="breakout", rate=1e-2)  # the best of Breakout, and not on Seaquest
    rows = {row[0]: row[-2] for row in grid_table(found(tmp_path)).rows}
    assert rows == {
        "normal at 0.0001 (chosen)": "0.50",  # (1 - 1) / 8 and 200 / 200
        "normal at 0.0003": "0.12",  # (3 - 1) / 8 and 0
        "normal at 0.001": "0.44",
        "normal at 0.01": MISSING,
    }


def test_norms_grow_relative_to_their_first_row(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0] * 3, parameterization="weight_norm", norms=[2, 3, 4], seed=1)
    write_run(tmp_path / "b", [1.0] * 3, parameterization="weight_norm", norms=[1, 1, 4], seed=2)
    write_run(tmp_path / "c", [1.0] * 3)
    comparison = comparison_of(tmp_path)
    (curve,) = norm_curves(comparison, WEIGHT_NORM, "breakout", "v")
    assert (curve.layer, curve.steps.tolist(), curve.growth) == ("conv", [100, 200, 300], 3.0)
    assert curve.norms.tolist() == [[2, 3, 4], [1, 1, 4]]
    assert norm_curves(comparison, NORMAL, "breakout", "v") == []
    table = growth_table(comparison)
    assert table is not None
    assert table.rows == (("weight norm at 0.0001", "Breakout", "3.00"),)


def test_norms_of_before_the_initialization_do_not_count(tmp_path: Path) -> None:
    """The first row of a run comes before its first update, and so before its data-dependent initialization."""
    write_run(
        tmp_path / "a", [1.0] * 3, parameterization="weight_norm", norms=[0.3, 4, 6], updates=[0, 1249, 2499]
    )
    (curve,) = norm_curves(comparison_of(tmp_path), WEIGHT_NORM, "breakout", "v")
    assert (curve.steps.tolist(), curve.growth) == ([200, 300], 1.5)


def test_a_run_without_norms_beside_one_with_them_leaves_none(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], parameterization="weight_norm", norms=[2], seed=1)
    write_run(tmp_path / "b", [1.0], parameterization="weight_norm", seed=2)
    assert growth_table(comparison_of(tmp_path)) is None


def test_speeds_are_medians_of_runs_by_method_game_and_machine(tmp_path: Path) -> None:
    for seed, speed in enumerate((100.0, 300.0, 200.0), start=1):
        write_run(tmp_path / str(seed), [1.0], seed=seed, frames_per_second=speed, device="cpu")
    write_run(tmp_path / "4", [1.0], seed=4, frames_per_second=9.0, device="cuda")
    write_run(tmp_path / "5", [1.0], seed=5)
    write_run(tmp_path / "6", [1.0], seed=6, frames_per_second=50.0, machine="2 x CPU")
    write_run(tmp_path / "7", [1.0], seed=1, game="seaquest", frames_per_second=40.0, machine="2 x CPU")
    comparison = comparison_of(tmp_path)
    assert {(s.game, s.machine): sorted(s.frames_per_second) for s in speeds(comparison)} == {
        ("breakout", "cpu, torch 2.13.0"): [100, 200, 300],
        ("breakout", "cuda, torch 2.13.0"): [9],
        ("breakout", "2 x CPU"): [50],
        ("seaquest", "2 x CPU"): [40],
    }
    first = speed_table(comparison).rows[0]
    assert first == ("normal", "Breakout", "cpu, torch 2.13.0", "3", "200", "100 to 300")
