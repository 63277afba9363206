from pathlib import Path

import pytest
from report_tools import compared, comparison_of, write_arm, write_run

from wn_rl.errors import UserError
from wn_rl.report.rates import Choice, best_rates, choose_rates
from wn_rl.report.records import Method

NORMAL = Method("normal")
WEIGHT_NORM = Method("weight_norm")


def test_the_best_rate_has_the_highest_mean_of_maxima(tmp_path: Path) -> None:
    write_arm(tmp_path, [[9, 0], [1, 1]], rate=1e-4)  # maxima 9 and 1: 5
    write_arm(tmp_path, [[5, 6], [6, 5]], rate=3e-4)  # maxima 6 and 6: 6
    write_arm(tmp_path, [[4, 4], [4, 4]], parameterization="weight_norm", rate=1e-3)
    assert best_rates(comparison_of(tmp_path)) == {NORMAL: 3e-4, WEIGHT_NORM: 1e-3}


def test_games_weigh_alike_in_the_choice_whatever_their_scale(tmp_path: Path) -> None:
    for game, scores in (("breakout", (1, 3, 2)), ("seaquest", (1000, 0, 999))):
        for rate, score in zip((1e-4, 3e-4, 1e-3), scores, strict=True):
            write_arm(tmp_path, [[score]], game=game, rate=rate)
    assert best_rates(comparison_of(tmp_path)) == {NORMAL: 1e-3}  # 0 + 1, 1 + 0, 1/2 + 0.999


def test_of_equal_rates_the_lowest_is_chosen(tmp_path: Path) -> None:
    for rate in (3e-4, 1e-4, 1e-3):
        write_arm(tmp_path, [[2.0]], rate=rate)
    assert best_rates(comparison_of(tmp_path)) == {NORMAL: 1e-4}


def test_a_rate_that_lacks_a_game_or_has_a_failed_run_is_not_chosen(tmp_path: Path) -> None:
    for game in ("breakout", "seaquest"):
        write_arm(tmp_path, [[1.0]], game=game, rate=1e-4)
        write_arm(tmp_path, [[8.0]], game=game, rate=1e-3)
    write_arm(tmp_path, [[9.0]], game="breakout", rate=3e-4)
    write_run(tmp_path / "f", [], steps=100, rate=1e-3, seed=5, status="failed")
    assert best_rates(comparison_of(tmp_path)) == {NORMAL: 1e-4}


def test_a_choice_says_what_it_was_made_on(tmp_path: Path) -> None:
    write_arm(tmp_path / "single", [[1.0]], rate=1e-4)
    write_arm(tmp_path / "grid", [[1.0]], rate=1e-4)
    write_arm(tmp_path / "grid", [[2.0]], rate=3e-4)
    single, grid = comparison_of(tmp_path / "single"), comparison_of(tmp_path / "grid")
    assert choose_rates(single, []) == Choice({NORMAL: 1e-4}, "single", single)
    assert choose_rates(grid, []) == Choice({NORMAL: 3e-4}, "same runs", grid)
    assert choose_rates(single, [grid]) == Choice({NORMAL: 3e-4}, "other runs", grid)


def test_a_method_that_the_other_runs_lack_has_its_only_rate(tmp_path: Path) -> None:
    write_arm(tmp_path / "fresh", [[1.0]], parameterization="batch_norm", rate=1e-3)
    write_arm(tmp_path / "fresh", [[1.0]], parameterization="weight_norm", rate=1e-3)
    write_arm(tmp_path / "fresh", [[1.0]], parameterization="weight_norm", rate=1e-4)
    write_arm(tmp_path / "grid", [[1.0]], rate=3e-4)
    rates = choose_rates(comparison_of(tmp_path / "fresh"), [comparison_of(tmp_path / "grid")]).rates
    assert rates == {NORMAL: 3e-4, Method("batch_norm"): 1e-3}


def test_runs_to_choose_on_must_be_of_one_kind(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0]], rate=1e-4)
    write_arm(tmp_path, [[1.0, 2.0]], rate=3e-4)
    comparisons, _ = compared(tmp_path)
    with pytest.raises(UserError, match=r"differ in more than game, arm and seed \(steps\)"):
        choose_rates(comparisons[0], comparisons)
