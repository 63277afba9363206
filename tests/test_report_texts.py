"""What the report says beside its numbers: how far they can be trusted."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from report_tools import comparison_of, found, write_arm, write_run

from wn_rl.compare import grid as sweep
from wn_rl.presets import minatar
from wn_rl.report.blocks import Block, Bullets, Caution, Text
from wn_rl.report.chapter_head import what_was_run
from wn_rl.report.chosen import how_chosen
from wn_rl.report.grids import read_grids
from wn_rl.report.records import Arm, Method
from wn_rl.report.sections import _about_dashes, _unequal_seeds
from wn_rl.report.summary import summary_line, summary_section
from wn_rl.stats import COVERAGE


def texts(blocks: Sequence[Block]) -> str:
    """Paragraphs, one a line."""
    return "\n".join(block.text for block in blocks if isinstance(block, Text | Caution))


def cautions(blocks: Sequence[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Caution)]


def write_pair(root: Path, normal: Sequence[float | None], weight_norm: Sequence[float | None]) -> None:
    """Three seeds with nearly the same tests in each arm."""
    for parameterization, scores in (("normal", normal), ("weight_norm", weight_norm)):
        curves = [[None if score is None else score + 0.01 * seed for score in scores] for seed in range(3)]
        write_arm(root, curves, parameterization=parameterization, rate=1e-4)


def head_of(root: Path) -> list[Block]:
    comparison = comparison_of(root)
    return what_was_run(comparison, [comparison], read_grids([root], [])[0])


def test_the_summary_says_how_often_its_intervals_are_wrong_at_these_seeds(tmp_path: Path) -> None:
    assert COVERAGE == {3: 0.79, 5: 0.87, 10: 0.91}  # 1 / 0.21, 1 / 0.13 and 1 / 0.09
    write_pair(tmp_path, [1], [2])
    text = texts(summary_section([found(tmp_path)]).blocks)
    assert "These lines read 3 intervals of 95%" in text  # maximum, last test and mean of the curve
    assert "about one in 5 at 3 seeds an arm, one in 8 at 5 and one in 11 at 10 would still leave out zero" in text
    assert text.endswith("The fewest seeds behind one here are 3.")


def test_one_interval_has_the_same_note_and_none_has_none(tmp_path: Path) -> None:
    write_pair(tmp_path / "one", [1, None], [2, None])  # no last test, and no mean of the curve
    assert "These lines read 1 interval of 95%" in texts(summary_section([found(tmp_path / "one")]).blocks)
    write_arm(tmp_path / "none", [[1], [2]], parameterization="normal", rate=1e-4)
    write_arm(tmp_path / "none", [[1], [2]], parameterization="weight_norm", rate=1e-4)
    assert "These lines" not in texts(summary_section([found(tmp_path / "none")]).blocks)


def test_the_summary_adds_the_scores_that_disagree_with_the_maximum(tmp_path: Path) -> None:
    write_pair(tmp_path, [2, 2, 2], [4, 3, 1])
    (contrast,) = found(tmp_path).own_rates
    assert summary_line(contrast) == (
        "weight norm at 0.0001 against normal at 0.0001: weight norm higher in Breakout (3 seeds). "
        "By the last test: weight norm lower in Breakout (3 seeds)."
    )


@pytest.mark.parametrize(("rates", "says"), [((1e-4,), False), ((1e-4, 3e-4), True)])
def test_the_summary_says_that_rates_were_chosen_on_these_runs(
    rates: tuple[float, ...], says: bool, tmp_path: Path
) -> None:
    write_pair(tmp_path, [1], [2])
    for rate in rates[1:]:
        write_arm(tmp_path, [[3.0]], parameterization="normal", rate=rate)
    own, equal, *_ = [block for block in summary_section([found(tmp_path)]).blocks if isinstance(block, Bullets)]
    assert ("(rates chosen on these same runs)" in own.items[0]) is says
    assert "chosen" not in equal.items[0]


def test_a_rate_at_an_end_of_those_tried_is_told(tmp_path: Path) -> None:
    for rate, normal in ((1e-4, 1.0), (3e-4, 2.0), (1e-3, 0.0)):
        write_arm(tmp_path, [[normal]], parameterization="normal", rate=rate)
        write_arm(tmp_path, [[rate]], parameterization="weight_norm", rate=rate)
    write_arm(tmp_path, [[1.0]], parameterization="batch_norm", rate=1e-4)  # one rate: nothing was tried
    (edge,) = [text for text in cautions(how_chosen(found(tmp_path))) if "end of the rates" in text]
    assert edge.endswith("may lie beyond: weight norm 0.001 (the greatest of 3).")


def test_rates_that_could_not_win_are_named(tmp_path: Path) -> None:
    for game in ("breakout", "seaquest"):
        write_arm(tmp_path, [[1.0]], game=game, rate=1e-4)
        write_arm(tmp_path, [[8.0]], game=game, rate=1e-3)
    write_arm(tmp_path, [[9.0]], game="breakout", rate=3e-4)
    write_run(tmp_path / "f", [], steps=100, rate=1e-3, seed=5, status="failed")
    (ruled_out,) = [text for text in cautions(how_chosen(found(tmp_path))) if "Ruled out" in text]
    assert ruled_out == "Ruled out: normal at 0.0003 (lacks a game) and normal at 0.001 (1 run failed)."


def test_a_rate_that_won_although_a_run_failed_is_not_ruled_out(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0]], rate=1e-4)
    write_run(tmp_path / "f", [], steps=100, rate=1e-4, seed=5, status="failed")
    write_arm(tmp_path, [[1.0]], parameterization="weight_norm", rate=1e-4)
    write_arm(tmp_path, [[2.0]], parameterization="weight_norm", rate=3e-4)
    assert "Ruled out" not in texts(how_chosen(found(tmp_path)))


def test_the_head_counts_arms_without_seeds_and_says_how_long_a_test_is(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0], [2.0]], game="breakout", rate=1e-4)
    write_arm(tmp_path, [[1.0]], game="seaquest", rate=3e-4)
    text = texts(head_of(tmp_path))
    assert "0 to 2 seeds to an arm and game" in text
    assert "one every 100 steps, of 5 games at the median;" in text


def test_the_head_says_how_much_of_a_grid_is_in(tmp_path: Path) -> None:
    cells = [sweep.Run(dataclasses.replace(minatar("breakout"), seed=seed), tmp_path) for seed in (1, 2)]
    sweep.write_grid(cells, ["wn-rl", "compare"])
    write_run(cells[0].path, [1.0], seed=1)
    assert cautions(head_of(tmp_path)) == [f"1 of the 2 runs of the grid in {tmp_path} are in."]
    write_run(cells[1].path, [1.0], seed=2)
    assert f"2 of the 2 runs of the grid in {tmp_path} are in." in texts(head_of(tmp_path))
    assert cautions(head_of(tmp_path)) == []


def test_runs_of_different_versions_are_told_apart_by_method(tmp_path: Path) -> None:
    old, new = {"torch": "2.9.0", "numpy": "2.4", "wandb": None}, {"torch": "2.13.0", "numpy": "2.4"}
    write_run(tmp_path / "a", [1.0], seed=1, versions=old)
    write_run(tmp_path / "b", [1.0], seed=2, versions=new)
    write_run(tmp_path / "c", [1.0], parameterization="weight_norm", versions=new)
    assert cautions(head_of(tmp_path)) == [
        "Runs of different versions are pooled: torch 2.9.0 (normal) and 2.13.0 (normal and weight norm)."
    ]


def test_games_of_unlike_numbers_of_runs_are_told_where_they_are_pooled(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0]] * 3, game="breakout", rate=1e-4)
    write_arm(tmp_path, [[1.0]] * 4, game="space_invaders", rate=1e-4)
    write_arm(tmp_path, [[1.0]] * 2, game="breakout", rate=3e-4)
    normal = [Arm(Method("normal"), rate) for rate in (1e-4, 3e-4)]
    (text,) = cautions(_unequal_seeds(comparison_of(tmp_path), normal))
    assert text.endswith("are not equally many: normal at 0.0001: Breakout 3, Space Invaders 4.")
    assert _unequal_seeds(comparison_of(tmp_path), normal[1:]) == []


@pytest.mark.parametrize(("baseline", "dashes"), [(-1.0, True), (1.0, False)])
def test_dashes_are_explained_where_there_are_any(baseline: float, dashes: bool, tmp_path: Path) -> None:
    for game in ("breakout", "seaquest"):
        write_arm(tmp_path, [[baseline]], game=game, parameterization="normal", rate=1e-4)
        write_arm(tmp_path, [[2.0]], game=game, parameterization="weight_norm", rate=1e-4)
    assert bool(_about_dashes(found(tmp_path).own_rates)) is dashes
