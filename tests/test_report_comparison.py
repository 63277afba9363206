import dataclasses
from pathlib import Path

import pytest
from report_tools import compared, comparison_of, write_arm, write_run

from wn_rl.config import LearningConfig, Role, names_of
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report import comparison as module
from wn_rl.report.records import Method

WEIGHT_NORM = Method("weight_norm")


def test_arms_games_and_seeds_of_one_comparison(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1, 2], [3, 4]], parameterization="weight_norm", rate=3e-4)
    write_arm(tmp_path, [[5, 6]], game="seaquest", rate=1e-4)
    comparison = comparison_of(tmp_path)
    assert comparison.name == "minatar, 200 steps"
    assert comparison.games == ["breakout", "seaquest"]
    assert [arm.label for arm in comparison.arms] == ["normal at 0.0001", "weight norm at 0.0003"]
    normal, weight_norm = comparison.arms
    assert comparison.scores(weight_norm, "breakout").tolist() == [[1, 2], [3, 4]]
    assert comparison.scores(normal, "seaquest").tolist() == [[5, 6]]
    assert comparison.scores(normal, "breakout").shape == (0, 2)


def test_the_baseline_is_the_plainest_of_normal_layers(tmp_path: Path) -> None:
    torch_start = dataclasses.replace(minatar("breakout").network, initialization="torch")
    write_run(tmp_path / "a", [1.0], network=torch_start)
    write_run(tmp_path / "b", [1.0], parameterization="weight_norm")
    assert comparison_of(tmp_path).baseline == Method("normal", (("initialization", "torch"),))
    write_run(tmp_path / "c", [1.0])
    comparison = comparison_of(tmp_path)
    assert comparison.baseline == Method("normal")
    assert [method.label for method in comparison.methods] == [
        "normal",
        "normal (initialization torch)",
        "weight norm",
    ]


def test_runs_of_different_length_are_never_in_one_comparison(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1, 2]], rate=1e-4)
    write_arm(tmp_path, [[1, 2, 3]], rate=3e-4)
    comparisons, left_out = compared(tmp_path)
    assert [comparison.horizon for comparison in comparisons] == [200, 300]
    assert left_out == []


def test_until_cuts_all_runs_at_one_step_and_leaves_out_those_that_are_shorter(tmp_path: Path) -> None:
    write_run(tmp_path / "done", [1, 2, 9], seed=1)
    write_run(tmp_path / "running", [3, 4], seed=2, steps=500, status="running")
    write_run(tmp_path / "short", [5], seed=3, steps=500, status="running")
    comparisons, left_out = compared(tmp_path, until=200)
    (comparison,) = comparisons
    assert comparison.scores(comparison.arms[0], "breakout").tolist() == [[1, 2], [3, 4]]
    assert [(entry.folder.name, entry.reason) for entry in left_out] == [("short", "running at step 100 of 200")]


def test_a_run_whose_last_test_is_still_to_come_has_not_reached_its_end(tmp_path: Path) -> None:
    write_run(tmp_path / "done", [1, 2], seed=1)
    folder = write_run(tmp_path / "testing", [3, 4], seed=2, status="running")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:-1]))
    _, left_out = compared(tmp_path)
    assert [entry.folder.name for entry in left_out] == ["testing"]


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


def test_what_may_change_when_a_grid_is_given_again_does_not_part_its_runs() -> None:
    assert names_of(Role.CIRCUMSTANCE, Role.RECORD) >= module._WITHOUT_EFFECT_ON_SCORES


def test_failed_unfinished_untested_and_repeated_runs_are_left_out_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0, 2.0], seed=1)
    write_run(tmp_path / "b", [1.0, 2.0], seed=1)
    write_run(tmp_path / "c", [1.0], seed=2, steps=200, status="failed", message="the loss is not finite")
    write_run(tmp_path / "d", [1.0], seed=3, steps=200, status="interrupted")
    write_run(tmp_path / "e", [None, None], seed=4)
    comparisons, left_out = compared(tmp_path)
    assert {entry.folder.name: entry.reason for entry in left_out} == {
        "b": f"has the settings and the seed of {tmp_path / 'a'}, which is in",
        "c": "failed at step 100 of 200: the loss is not finite",
        "d": "interrupted at step 100 of 200",
        "e": "has no test score up to step 200",
    }
    (comparison,) = comparisons
    assert comparison.num_left_out(comparison.arms[0]) == 4
    assert comparison.num_left_out(comparison.arms[0], "seaquest") == 0
    assert comparison.num_left_out(comparison.arms[0], status="failed") == 1


def test_nothing_to_compare_is_one_clear_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], steps=200, status="running")
    with pytest.raises(UserError, match=r"no run can be compared: .*a: running at step 100 of 200"):
        compared(tmp_path)
