import dataclasses
from pathlib import Path

import pytest
from report_tools import compared, comparison_of, write_arm, write_run

from wn_rl.compare.arms import Arm
from wn_rl.config import LearningConfig
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report.comparison import Choice, best_arms, choose_rates

NORMAL = Arm("normal")


def best_rate(root: Path) -> float:
    """The rate that normal layers have at the end."""
    return best_arms(comparison_of(root))[NORMAL].learning_rate


def test_arms_games_and_seeds_of_one_comparison(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1, 2], [3, 4]], parameterization="weight_norm", rate=3e-4)
    write_arm(tmp_path, [[5, 6]], game="seaquest")
    comparison = comparison_of(tmp_path)
    assert comparison.name == "minatar, 200 steps"
    assert comparison.games == ["breakout", "seaquest"]
    assert [arm.label for arm in comparison.arms] == ["normal at 0.0001", "weight norm at 0.0003"]
    normal, weight_norm = comparison.arms
    assert comparison.scores(weight_norm, "breakout").tolist() == [[1, 2], [3, 4]]
    assert comparison.scores(normal, "seaquest").tolist() == [[5, 6]]
    assert comparison.scores(normal, "breakout").shape == (0, 2)


def test_the_baseline_is_the_plainest_of_normal_layers(tmp_path: Path) -> None:
    from_data = dataclasses.replace(minatar("breakout").network, initialization="data_dependent")
    write_run(tmp_path / "a", [1.0], network=from_data)
    write_run(tmp_path / "b", [1.0], parameterization="weight_norm")
    assert comparison_of(tmp_path).baseline == Arm("normal", options=(("initialization", "data_dependent"),))
    write_run(tmp_path / "c", [1.0])
    comparison = comparison_of(tmp_path)
    assert comparison.baseline == NORMAL
    labels = [method.label for method in comparison.methods]
    assert labels == ["normal", "normal (initialization data_dependent)", "weight norm"]


def test_runs_of_different_length_are_never_in_one_comparison(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1, 2]], rate=1e-4)
    write_arm(tmp_path, [[1, 2, 3]], rate=3e-4)
    comparisons, left_out = compared(tmp_path)
    assert [comparison.horizon for comparison in comparisons] == [200, 300]
    assert left_out == []
    with pytest.raises(UserError, match=r"differ in more than game, arm and seed \(steps\)"):
        choose_rates(comparisons[0], comparisons)


def test_until_cuts_all_runs_at_one_step_and_leaves_out_those_that_are_shorter(tmp_path: Path) -> None:
    write_run(tmp_path / "done", [1, 2, 9], seed=1)
    write_run(tmp_path / "running", [3, 4], seed=2, steps=500, status="running")
    write_run(tmp_path / "short", [5], seed=3, steps=500, status="running")
    (comparison,), left_out = compared(tmp_path, until=200)
    assert comparison.scores(comparison.arms[0], "breakout").tolist() == [[1, 2], [3, 4]]
    assert [(entry.folder.name, entry.reason) for entry in left_out] == [("short", "running at step 100 of 200")]


def test_a_run_whose_last_evaluation_is_still_to_come_has_not_reached_its_end(tmp_path: Path) -> None:
    write_run(tmp_path / "done", [1, 2], seed=1)
    folder = write_run(tmp_path / "evaluating", [3, 4], seed=2, status="running")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert [entry.folder.name for entry in compared(tmp_path)[1]] == ["evaluating"]


def test_runs_with_other_settings_are_compared_apart_under_another_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0])
    write_run(tmp_path / "b", [1.0], learning=LearningConfig(batch_size=32))
    write_run(tmp_path / "c", [1.0], learning=LearningConfig(batch_size=16))
    names = [comparison.name for comparison in compared(tmp_path)[0]]
    assert names == ["minatar, 100 steps", "minatar, 100 steps, settings 2", "minatar, 100 steps, settings 3"]


def test_settings_without_effect_on_scores_do_not_part_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], seed=1)
    write_run(tmp_path / "b", [1.0], seed=2, device="cpu", group="x", log_period=7, torch_threads=4)
    assert len(comparison_of(tmp_path).runs) == 2


def test_failed_unfinished_unevaluated_and_repeated_runs_are_left_out_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0, 2.0], seed=1)
    write_run(tmp_path / "b", [1.0, 2.0], seed=1)
    write_run(tmp_path / "c", [1.0], seed=2, steps=200, status="failed", message="the loss is not finite")
    write_run(tmp_path / "d", [1.0], seed=3, steps=200, status="interrupted")
    write_run(tmp_path / "e", [None, None], seed=4)
    (comparison,), left_out = compared(tmp_path)
    assert {entry.folder.name: entry.reason for entry in left_out} == {
        "b": f"has the settings and the seed of {tmp_path / 'a'}, which is in the numbers",
        "c": "failed at step 100 of 200: the loss is not finite",
        "d": "interrupted at step 100 of 200",
        "e": "has no evaluation score up to step 200",
    }
    assert list(comparison.left_out) == left_out


def test_nothing_to_compare_is_one_clear_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], steps=200, status="running")
    with pytest.raises(UserError, match=r"none of the runs can be compared: .*a: running at step 100 of 200"):
        compared(tmp_path)


def test_the_best_rate_has_the_highest_mean_of_maxima(tmp_path: Path) -> None:
    write_arm(tmp_path, [[9, 0], [1, 1]], rate=1e-4)  # maxima 9 and 1: 5
    write_arm(tmp_path, [[5, 6], [6, 5]], rate=3e-4)  # maxima 6 and 6: 6
    write_arm(tmp_path, [[4, 4], [4, 4]], parameterization="weight_norm", rate=1e-3)
    best = {NORMAL: Arm("normal", 3e-4), Arm("weight_norm"): Arm("weight_norm", 1e-3)}
    assert best_arms(comparison_of(tmp_path)) == best


def test_games_weigh_alike_in_the_choice_whatever_their_scale(tmp_path: Path) -> None:
    for game, scores in (("breakout", (1, 3, 2)), ("seaquest", (1000, 0, 999))):
        for rate, score in zip((1e-4, 3e-4, 1e-3), scores, strict=True):
            write_arm(tmp_path, [[score]], game=game, rate=rate)
    assert best_rate(tmp_path) == 1e-3  # 0 + 1, 1 + 0, 1/2 + 0.999


def test_of_equal_rates_the_lowest_is_chosen(tmp_path: Path) -> None:
    for rate in (3e-4, 1e-4, 1e-3):
        write_arm(tmp_path, [[2.0]], rate=rate)
    assert best_rate(tmp_path) == 1e-4


def test_a_rate_that_lacks_a_game_or_has_a_failed_run_is_not_chosen(tmp_path: Path) -> None:
    for game in ("breakout", "seaquest"):
        write_arm(tmp_path, [[1.0]], game=game, rate=1e-4)
        write_arm(tmp_path, [[8.0]], game=game, rate=1e-3)
    write_arm(tmp_path, [[9.0]], game="breakout", rate=3e-4)
    write_run(tmp_path / "f", [], steps=100, rate=1e-3, seed=5, status="failed")
    assert best_rate(tmp_path) == 1e-4


def test_a_rate_at_which_a_run_failed_is_better_than_none(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0]], rate=1e-4)
    write_run(tmp_path / "f", [], steps=100, rate=1e-4, seed=5, status="failed")
    assert best_rate(tmp_path) == 1e-4


def test_a_choice_says_what_it_was_made_on(tmp_path: Path) -> None:
    write_arm(tmp_path / "single", [[1.0]])
    write_arm(tmp_path / "grid", [[1.0]], rate=1e-4)
    write_arm(tmp_path / "grid", [[2.0]], rate=3e-4)
    single, grid = comparison_of(tmp_path / "single"), comparison_of(tmp_path / "grid")
    assert choose_rates(single, []) == Choice({NORMAL: Arm("normal", 1e-4)}, None)
    assert choose_rates(grid, []) == Choice({NORMAL: Arm("normal", 3e-4)}, grid)
    assert choose_rates(single, [grid]) == Choice({NORMAL: Arm("normal", 3e-4)}, grid)


def test_a_method_that_the_other_runs_lack_has_its_only_rate(tmp_path: Path) -> None:
    write_arm(tmp_path / "fresh", [[1.0]], parameterization="batch_norm", rate=1e-3)
    for rate in (1e-3, 1e-4):
        write_arm(tmp_path / "fresh", [[1.0]], parameterization="weight_norm", rate=rate)
    write_arm(tmp_path / "grid", [[1.0]], rate=3e-4)
    choice = choose_rates(comparison_of(tmp_path / "fresh"), [comparison_of(tmp_path / "grid")])
    assert choice.arms == {NORMAL: Arm("normal", 3e-4), Arm("batch_norm"): Arm("batch_norm", 1e-3)}
