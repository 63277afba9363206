"""Other people's learning curves beside ours."""

from pathlib import Path

import pytest
from report_tools import PERIOD, write_arm
from run_tools import wn_rl

from wn_rl.errors import UserError
from wn_rl.report.published_curves import read_curves

HEADER = "game,seed,agent_steps,mean_return\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "theirs.csv"
    file.write_text(text)
    return file


def test_a_curve_is_the_mean_over_the_seeds_of_each_evaluation(tmp_path: Path) -> None:
    rows = "breakout,1,200,4\nbreakout,1,100,1\nbreakout,7,100,3\nseaquest,1,100,9\n"
    curves = read_curves([write(tmp_path, HEADER + rows)])
    assert curves["atari"] == {
        "breakout": [("theirs (2 seeds)", [(100, 2.0), (200, 4.0)])],
        "seaquest": [("theirs (1 seed)", [(100, 9.0)])],
    }


def test_a_column_may_name_the_suite_and_files_stand_side_by_side(tmp_path: Path) -> None:
    file = write(tmp_path, "suite,game,agent_steps,mean_return\nminatar,breakout,100,1.5\n")
    curves = read_curves([file, file])
    assert {suite: {game: len(own) for game, own in games.items()} for suite, games in curves.items()} == {
        "minatar": {"breakout": 2}
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("game,steps\nbreakout,1\n", "no column 'mean_return'"),
        (HEADER, "has no row"),
        (HEADER + "breakout,1,100,high\n", "could not convert"),
        (HEADER + "breakout,1,100,nan\n", "nan is not a score"),
        (HEADER + "breakout,1,many,1\n", "invalid literal"),
        (HEADER + "breakout\n", "could not be read"),
    ],
)
def test_what_is_no_curve_is_one_clear_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        read_curves([write(tmp_path, text)])
    with pytest.raises(UserError, match=r"could not be read: .*No such file"):
        read_curves([tmp_path / "absent.csv"])


def test_the_report_draws_them_up_to_its_last_step(tmp_path: Path) -> None:
    write_arm(tmp_path / "runs", [[1, 2], [2, 3]], parameterization="normal", rate=1e-4, suite="atari")
    rows = "".join(f"breakout,1,{step},{score}\n" for step, score in ((PERIOD, 5), (2 * PERIOD, 7), (300, 100)))
    rows += "seaquest,1,100,1\n"
    file = write(tmp_path, HEADER + rows)
    out = tmp_path / "out"
    assert wn_rl("report", str(tmp_path / "runs"), "--curves", str(file), "--no-videos", "--out", str(out)) == 0
    assert "theirs (1 seed) on Breakout: 7.00 at step 200." in (out / "report.md").read_text()
    (figure,) = (out / "figures").glob("*overview.svg")
    assert ">theirs (1 seed)</text>" in figure.read_text()
