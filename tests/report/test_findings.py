from pathlib import Path

import pytest
from report_tools import found, write_arm, write_pair, write_run

from wn_rl.compare.arms import Arm
from wn_rl.report.content import score_table
from wn_rl.report.findings import Finding, Findings
from wn_rl.report.stats import Estimate
from wn_rl.report.tables import csv_tables
from wn_rl.report.words import MISSING

NORMAL = Arm("normal", 1e-4)
WEIGHT_NORM = Arm("weight_norm", 1e-4)
PUBLISHED = {
    "breakout": {"random": 2.0, "dqn_nature": 400.0},
    "seaquest": {"random": 0.0},
}


def number(findings: Findings, quantity: str, game: str | None = "breakout") -> Finding | None:
    """The maximum of weight norm against normal layers, both at 1e-4."""
    return findings.find(quantity, "maximum", WEIGHT_NORM, game, NORMAL)


def rows_of(findings: Findings, metric: str = "maximum") -> list[list[str]]:
    return [list(row) for row in score_table(findings, metric).rows]


def test_the_scores_of_an_arm_by_hand(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1, 5, 3], [2, 2, 8], [0, 6, 1]])
    findings = found(tmp_path)
    means = [findings.find("mean", m, NORMAL, "breakout").estimate.point for m in ("maximum", "final")]
    assert means == pytest.approx([(5 + 8 + 6) / 3, (3 + 8 + 1) / 3])
    assert [mean.point for mean in findings.curves[NORMAL, "breakout"]] == pytest.approx([1, 13 / 3, 4])


def test_missing_evaluations_count_for_what_they_can(tmp_path: Path) -> None:
    """Maximum: over the evaluations that there are. Last evaluation: of the runs that have it."""
    write_arm(tmp_path, [[1, None, 3], [None, 2, 2], [4, 6, None]])
    findings = found(tmp_path)
    means = [findings.find("mean", m, NORMAL, "breakout") for m in ("maximum", "final")]
    assert [(mean.estimate.point, mean.seeds) for mean in means] == [(pytest.approx(11 / 3), 3), (2.5, 2)]
    assert means[1].estimate == Estimate(2.5)


def test_a_difference_by_hand_in_numbers_and_in_words(tmp_path: Path) -> None:
    write_pair(tmp_path, [[1, 2], [1, 2], [2, 1]], [[3, 4], [4, 3], [4, 1]])
    findings = found(tmp_path)
    assert findings.own == findings.equal == {WEIGHT_NORM: NORMAL}
    assert number(findings, "difference").estimate == Estimate(2.0, 2.0, 2.0)
    assert rows_of(findings) == [
        ["Breakout", "normal at 0.0001", "2.00", "3", MISSING],
        ["Breakout", "weight norm at 0.0001", "4.00", "3", "+2.00; all scores equal: no interval"],
    ]
    assert rows_of(findings, "final")[1][4].endswith("; no difference shown")


@pytest.mark.parametrize(
    ("normal", "weight_norm", "says"),
    [
        ([2.0] * 4, [2.0] * 4, "0.00; no difference shown"),
        ([0.1] * 4, [0.1] * 3, "0.00; no difference shown"),  # though their means differ in floating point
        ([1.0], [900.0], "+899; 1 seed: no interval"),
        ([1.0] * 5, [900.0] * 2, "+899; 2 seeds: no interval"),
        ([1.0, 2, 3], [5.0, 6, 7], "+4.00 [2.67, 5.33]; higher"),
        ([5.0, 6, 7], [1.0, 2, 3], "\N{MINUS SIGN}4.00 [\N{MINUS SIGN}5.33, \N{MINUS SIGN}2.67]; lower"),
    ],
)
def test_no_claim_without_an_interval(
    normal: list[float], weight_norm: list[float], says: str, tmp_path: Path
) -> None:
    write_pair(tmp_path, [[score] for score in normal], [[score] for score in weight_norm])
    assert rows_of(found(tmp_path))[1][4] == says


def test_over_games_by_hand(tmp_path: Path) -> None:
    """Of the pairs of runs weight norm wins 8 of 9 in one game, and 4 in the other, whose scale is larger."""
    write_pair(tmp_path, [[2], [4], [6]], [[5], [7], [8]])
    write_pair(tmp_path, [[200], [400], [600]], [[100], [500], [600]], game="seaquest")
    findings = found(tmp_path)
    improvement = number(findings, "improvement", None)
    assert improvement.games == ("breakout", "seaquest")
    assert improvement.estimate.point == pytest.approx((8 / 9 + (2 + 2.5) / 9) / 2)
    title, arm, score, seeds, compared = rows_of(findings)[-1]
    assert (title, arm, score, seeds) == ("2 games", "weight norm at 0.0001", MISSING, MISSING)
    assert compared.startswith("P = 0.69 [")


def test_one_game_has_no_number_over_games(tmp_path: Path) -> None:
    write_pair(tmp_path, [[1.0]] * 3, [[2.0]] * 3)
    findings = found(tmp_path, PUBLISHED)
    assert all(each.game == "breakout" for each in findings.numbers)
    assert "Over games" not in score_table(findings, "maximum").caption


def test_games_that_one_arm_lacks_are_not_compared(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0]] * 3, game="breakout")
    write_pair(tmp_path, [[1.0]] * 3, [[2.0]] * 3, game="seaquest")
    assert {each.games for each in found(tmp_path).numbers if each.baseline} == {("seaquest",)}


def test_own_and_equal_rates_are_two_questions(tmp_path: Path) -> None:
    """Weight norm wins at its own rate against normal at its own; at the equal rate, normal does."""
    write_pair(tmp_path, [[5.0]] * 3, [[2.0]] * 3)
    write_arm(tmp_path, [[6.0]] * 3, rate=3e-4)
    write_arm(tmp_path, [[9.0]] * 3, parameterization="weight_norm", rate=1e-3)
    findings = found(tmp_path)
    differences = {
        (each.arm.learning_rate, each.baseline.learning_rate): each.estimate.point
        for each in findings.numbers
        if (each.quantity, each.metric) == ("difference", "maximum")
    }
    assert findings.own == {Arm("weight_norm", 1e-3): Arm("normal", 3e-4)}
    assert findings.equal == {WEIGHT_NORM: NORMAL}
    assert differences == {(1e-3, 3e-4): 3.0, (1e-4, 1e-4): -3.0}


def test_an_arm_that_has_its_own_rate_apart_is_compared_at_the_same_rate_too(tmp_path: Path) -> None:
    write_pair(tmp_path, [[5.0]] * 3, [[7.0]] * 3)
    write_arm(tmp_path, [[6.0]] * 3, rate=3e-4)
    table = score_table(found(tmp_path), "maximum")
    assert table.header[4:] == ["against normal at 0.0003", "against normal at the same rate"]
    assert [cell.split(";")[0] for cell in table.rows[1][4:]] == ["+1.00", "+2.00"]


def test_published_scores_stand_beside_ours_and_gaps_are_marked(tmp_path: Path) -> None:
    write_arm(tmp_path, [[1.0], [3.0]], game="breakout")
    write_arm(tmp_path, [[2000.0]], game="seaquest", parameterization="weight_norm")
    assert [row[:4] for row in rows_of(found(tmp_path, PUBLISHED))] == [
        ["Breakout", "normal at 0.0001", "2.00", "2"],
        ["Breakout", "Mnih et al.", "400", MISSING],
        ["Seaquest", "weight norm at 0.0001", "2,000", "1"],
    ]


def norms_of(root: Path) -> list[tuple[str, ...]]:
    """Norm, layer, steps, first and last norm, and growth, as norms.csv has them."""
    text = csv_tables([found(root)], []).get("norms.csv", "")
    return [tuple(row.split(",")[-7:]) for row in text.splitlines()[1:]]


def test_norms_grow_relative_to_their_first_row(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0] * 3, parameterization="weight_norm", norms=[2, 3, 4], seed=1)
    write_run(tmp_path / "b", [1.0] * 3, parameterization="weight_norm", norms=[1, 1, 4], seed=2)
    write_run(tmp_path / "c", [1.0] * 3)
    ends = ("100", "300")
    assert norms_of(tmp_path) == [
        ("v", "conv", *ends, "1.5", "4.0", "3.0"),
        ("g", "conv", *ends, "1.0", "1.0", "1.0"),
    ]


def test_norms_from_before_the_initialization_do_not_count(tmp_path: Path) -> None:
    """The first row of a run comes before its first update, and so before its data-dependent initialization."""
    write_run(tmp_path / "a", [1.0] * 3, norms=[0.3, 4, 6], updates=[0, 1249, 2499])
    assert norms_of(tmp_path)[0] == ("v", "conv", "200", "300", "4.0", "6.0", "1.5")


def test_a_run_without_norms_beside_one_with_them_leaves_none(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [1.0], norms=[2], seed=1)
    write_run(tmp_path / "b", [1.0], seed=2)
    assert norms_of(tmp_path) == []
