import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_tools import write_arm, write_run

from wn_rl.commands import report as command
from wn_rl.compare import grid as sweep
from wn_rl.compare.arms import parse_arms
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report.writer import Request, write_report


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def write_pair(root: Path, **settings: object) -> None:
    """Three seeds an arm at one rate: weight norm 4 points higher."""
    write_arm(root, [[1, 2], [2, 3], [3, 4]], parameterization="normal", rate=1e-4, **settings)
    write_arm(root, [[5, 6], [6, 7], [7, 8]], parameterization="weight_norm", rate=1e-4, **settings)


def test_the_tables_hold_the_known_answers(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    write_report(Request([tmp_path / "runs"], tmp_path / "out"))
    tables = tmp_path / "out" / "tables"
    differences = {row["metric"]: row for row in rows_of(tables / "differences.csv") if row["rates"] == "own"}
    maximum = differences["maximum"]
    assert [float(maximum[name]) for name in ("mean", "baseline_mean", "difference")] == [7, 3, 4]
    assert (float(maximum["difference_low"]), float(maximum["difference_high"])) == pytest.approx((3, 5), abs=0.35)
    assert maximum["reading"] == "weight norm higher (3 seeds)"
    assert float(differences["area"]["difference"]) == 4
    curves = [(row["method"], row["step"], float(row["mean"])) for row in rows_of(tables / "curves.csv")]
    assert curves == [
        ("normal", "100", 2),
        ("normal", "200", 3),
        ("weight norm", "100", 6),
        ("weight norm", "200", 7),
    ]
    runs = rows_of(tables / "runs.csv")
    assert [float(row["maximum"]) for row in runs if row["method"] == "normal"] == [2, 3, 4]
    assert len(json.loads((tmp_path / "out" / "configs.json").read_text())) == 6
    tests = [row for row in rows_of(tables / "tests.csv") if row["method"] == "weight norm" and row["seed"] == "2"]
    assert [(row["epoch"], row["step"], float(row["score"])) for row in tests] == [
        ("1", "100", 6),
        ("2", "200", 7),
    ]


def test_a_report_is_the_same_every_time(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    pages = [write_report(Request([tmp_path / "runs"], tmp_path / out)).read_text() for out in ("one", "two")]
    assert pages[0] == pages[1]


def test_page_and_markdown_say_the_same(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    page = write_report(Request([tmp_path / "runs"], tmp_path / "out"))
    sentence = "weight norm at 0.0001 against normal at 0.0001: weight norm higher in Breakout (3 seeds)."
    assert sentence in page.read_text()
    assert sentence in (tmp_path / "out" / "report.md").read_text()


def test_every_figure_that_the_markdown_names_is_there(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    named = {part.split(")")[0] for part in text.split("](")[1:]}
    assert "figures/minatar-200-steps-own-rates-breakout.png" in named
    for name in named:
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / "out" / name).with_suffix(".svg").exists()
    assert (tmp_path / "out" / "figures" / "minatar-200-steps-overview.png").exists()
    assert not (tmp_path / "out" / "figures" / "minatar-200-steps-rates-overview.png").exists()
    write_arm(tmp_path / "runs", [[1, 2], [2, 3], [3, 4]], rate=1e-2)
    write_report(Request([tmp_path / "runs"], tmp_path / "out"))
    assert (tmp_path / "out" / "figures" / "minatar-200-steps-rates-overview.png").exists()


def test_what_is_left_out_and_what_is_missing_is_said(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    write_run(tmp_path / "runs" / "gaps", [None, 5], seed=8)
    write_run(tmp_path / "runs" / "failed", [1], seed=9, steps=200, status="failed", message="not finite")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.json").write_text("{")
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "1 run of this kind left out, 1 of them failed" in text
    assert "1 test without a score" in text
    assert "failed at step 100 of 200: not finite" in text
    assert "broken/config.json is damaged" in text
    left_out = [row["folder"] for row in rows_of(tmp_path / "out" / "tables" / "runs.csv") if row["left_out"]]
    assert [Path(folder).name for folder in left_out] == ["broken", "failed"]


def test_runs_of_two_lengths_are_two_chapters_that_say_so(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    write_arm(tmp_path / "runs", [[1, 2, 3]], rate=1e-4, parameterization="normal", game="seaquest")
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "## minatar, 200 steps" in text
    assert "## minatar, 300 steps" in text
    assert text.count("Other minatar runs are compared apart, for they differ in steps.") == 2


def test_rates_chosen_on_the_same_runs_are_called_that(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    write_arm(tmp_path / "runs", [[9, 9]], rate=3e-4, parameterization="normal")
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "The rates were chosen on these same runs, from 2 rates of normal and 1 rate of weight norm" in text


def test_rates_can_be_chosen_on_other_runs_and_shared_seeds_are_told(tmp_path: Path) -> None:
    write_pair(tmp_path / "fresh")
    write_arm(tmp_path / "fresh", [[9, 9]], rate=3e-4, parameterization="normal")
    write_arm(tmp_path / "rates", [[5]], rate=1e-4, parameterization="normal")
    write_arm(tmp_path / "rates", [[4]], rate=3e-4, parameterization="normal")
    request = Request([tmp_path / "fresh"], tmp_path / "out", rates_from=[tmp_path / "rates"])
    text = write_report(request).with_suffix(".md").read_text()
    # not 0.0003, which is best on the fresh runs
    assert "Chosen rates: normal 0.0001, on 2 other runs of 100 steps" in text
    assert "nothing was chosen: weight norm." in text
    assert "2 runs here share game, arm and seed with one that rates were chosen on." in text


def test_runs_to_choose_rates_from_are_read_whole_shown_and_told_where_unlike(tmp_path: Path) -> None:
    """The choice falls at the third test, after the step that the reported runs are cut at."""
    write_pair(tmp_path / "fresh")
    unlike = dataclasses.replace(minatar("breakout").learning, batch_size=32)
    for rate, scores in ((1e-4, [5, 5, 5]), (3e-4, [4, 4, 9])):
        write_arm(tmp_path / "rates", [scores], rate=rate, parameterization="normal", learning=unlike)
    (tmp_path / "rates" / "damaged").mkdir()
    (tmp_path / "rates" / "damaged" / "config.json").write_text("{")
    request = Request([tmp_path / "fresh"], tmp_path / "out", rates_from=[tmp_path / "rates"], until=100)
    text = write_report(request).with_suffix(".md").read_text()
    assert "Chosen rates: normal 0.0003, on 2 other runs of 300 steps" in text
    assert "Those runs differ from the ones here in learning.batch_size too." in text
    assert "| normal at 0.0003 (chosen) | 9.00 (1) | 1.00 |" in text
    assert f"| {tmp_path / 'rates' / 'damaged'} | cannot be read:" in text


@pytest.mark.parametrize("named", ["whole", "runs", "run"])
def test_a_grid_is_found_from_its_runs_too(named: str, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    cells = [sweep.Run(dataclasses.replace(minatar("breakout"), seed=seed), out) for seed in (1, 2)]
    write_run(cells[0].path, [1.0])
    sweep.write_grid(cells, ["wn-rl", "compare"])
    folder = {"whole": out, "runs": out / "runs", "run": cells[0].path}[named]
    text = write_report(Request([folder], tmp_path / "out")).with_suffix(".md").read_text()
    assert "1 of the 2 runs of the grid" in text


def test_the_cells_of_a_grid_are_of_the_methods_of_its_runs(tmp_path: Path) -> None:
    arms = parse_arms(["normal+initialization=torch:1e-4"])
    (run,) = sweep.expand([minatar("breakout")], arms, [1], tmp_path / "comparison")
    write_run(tmp_path / "comparison" / "runs" / "other", [1.0])
    sweep.write_grid([run], ["wn-rl", "compare"])
    text = write_report(Request([tmp_path / "comparison"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "1 run never began: normal (initialization torch) at 0.0001 on Breakout, seed 1" in text


def test_all_grids_of_a_folder_are_counted_each_run_once(tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    cells = [sweep.Run(dataclasses.replace(minatar("breakout"), seed=seed), out) for seed in (1, 2, 3)]
    for cell in cells[:2]:
        write_run(cell.path, [1.0], seed=cell.config.seed)
    sweep.write_grid(cells[:2], ["wn-rl", "compare", "first"])
    sweep.write_grid(cells[1:], ["wn-rl", "compare", "second"])
    text = write_report(Request([out], tmp_path / "out")).with_suffix(".md").read_text()
    assert "2 of the 3 runs of the grid" in text
    assert "2 of 2 runs begun" in text
    assert "1 of 2 runs begun" in text


def test_a_video_that_fails_in_any_way_leaves_the_report(tmp_path: Path) -> None:
    def broken(run: Path, video: Path, seed: int) -> str:
        raise RuntimeError("size mismatch")

    write_pair(tmp_path / "runs")
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out", record_game=broken))
    assert "size mismatch" in text.with_suffix(".md").read_text()


def test_runs_of_a_grid_that_never_began_are_missed(tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    cells = [sweep.Run(dataclasses.replace(minatar("breakout"), seed=seed), out) for seed in (1, 2, 3)]
    write_run(cells[0].path, [1.0])
    sweep.write_grid(cells, ["wn-rl", "compare", "--games", "breakout"])
    text = write_report(Request([out], tmp_path / "out")).with_suffix(".md").read_text()
    assert "1 of the 3 runs of the grid" in text
    assert "1 of 3 runs begun" in text
    assert "wn-rl compare --games breakout" in text
    named = [row for row in rows_of(tmp_path / "out" / "tables" / "runs.csv") if row["left_out"]]
    assert [(row["folder"], row["left_out"]) for row in named] == [
        (str(out), "of its grid, 2 runs never began: weight norm at 0.0003 on Breakout, seed 2 and 3")
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"grids": [{"command": [], "runs": [{}]}]}'])
def test_a_damaged_grid_is_named_and_the_runs_are_reported(text: str, tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    (tmp_path / "runs" / "comparison.json").write_text(text)
    report = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "comparison.json | cannot be read:" in report


def test_a_report_without_the_baseline_says_so(tmp_path: Path) -> None:
    write_arm(tmp_path / "runs", [[1.0]], parameterization="weight_norm", rate=1e-4)
    text = write_report(Request([tmp_path / "runs"], tmp_path / "out")).with_suffix(".md").read_text()
    assert "no run of normal, so nothing is compared with it" in text


def test_atari_has_published_scores_and_says_how_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "runs", suite="atari", game="enduro")
    assert command.run([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-videos"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| Enduro | 3.00 \\[2.00, 4.00\\] (3) | 7.00 \\[6.00, 8.00\\] (3) | 1,250 | 1,448 | 302 |" in text
    assert "five-minute cap" in text
    assert "These runs cut a game at 30 minutes" in text
    assert "evaluation.period 100 (paper 250,000)" in text
    assert "Salimans & Kingma 2016, Table 3" in text


def test_a_new_report_takes_away_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_pair(tmp_path / "runs", game="breakout")
    write_report(Request([tmp_path / "runs"], out))
    before = {path.relative_to(out) for path in out.glob("*/*")}
    mine = [out / "figures" / "mine.png", out / "tables" / "mine.csv", out / "videos" / "game.mp4"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    shutil.rmtree(tmp_path / "runs")
    write_pair(tmp_path / "runs", game="seaquest")
    write_report(Request([tmp_path / "runs"], out))
    after = {path.relative_to(out) for path in out.glob("*/*")} - {path.relative_to(out) for path in mine}
    assert all(file.read_text() == "mine" for file in mine)
    assert not any("breakout" in path.name for path in after)
    assert any("breakout" in path.name for path in before)
    assert set((out / "files.txt").read_text().split("\n")) == {"", *map(str, after)}


def test_a_run_s_own_folder_is_no_place_for_a_report(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    run = next((tmp_path / "runs").rglob("config.json")).parent
    with pytest.raises(UserError, match="is the folder of a run: name another one"):
        write_report(Request([run], run))


def test_videos_are_of_the_best_run_of_each_arm_on_one_seed(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    calls = []

    def record(run: Path, video: Path, seed: int) -> str:
        calls.append((json.loads((run / "config.json").read_text())["config"]["seed"], seed))
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(b"mp4")
        return "return 3"

    page = write_report(Request([tmp_path / "runs"], tmp_path / "out", record_game=record)).read_text()
    assert calls == [(3, 0), (3, 0)]
    assert page.count("data:video/mp4;base64,bXA0") == 2
    assert "Breakout, weight norm at 0.0001, training seed 3: return 3" in page


def test_a_video_that_cannot_be_made_is_one_line_of_the_report(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs")
    command.run([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])  # these runs have no network
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No video of weight norm at 0.0001 on Breakout:" in text


def test_a_second_report_leaves_no_figure_of_the_first(tmp_path: Path) -> None:
    write_pair(tmp_path / "a")
    write_pair(tmp_path / "b", game="seaquest")
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "mine.png").write_bytes(b"kept: no report was here yet")
    write_report(Request([tmp_path / "a"], out))
    assert (out / "figures" / "mine.png").exists()
    write_report(Request([tmp_path / "b"], out))
    assert not [name for name in (out / "figures").iterdir() if "breakout" in name.name]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent", "--out", "out"], "there is no run in absent"),
        (["empty", "--out", "out"], "there is no run in empty"),
        (["runs", "--rates-from", "empty", "--out", "out"], "there is no run in empty"),
        (["runs", "--until", "900", "--out", "out"], "no run can be compared"),
        (["runs", "--until", "0", "--out", "out"], "--until must be at least 1"),
        (["runs", "--out", "file"], "file is a file"),
        (["--out", "out"], "name the folders of the runs"),
        (["runs"], "--out"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_writes_nothing(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    write_pair(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=says) as caught:
        command.run(arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_user_errors_are_those_that_exit_with_2(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_report(Request([tmp_path], tmp_path / "out"))


def test_the_report_knows_neither_agents_nor_envs() -> None:
    code = (
        "import sys, wn_rl.report.writer, wn_rl.stats; print([m for m in sys.modules if m.startswith('wn_rl.')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "wn_rl.report.writer" in loaded
    assert "wn_rl.agents" not in loaded
    assert "wn_rl.envs" not in loaded
