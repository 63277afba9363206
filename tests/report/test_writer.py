"""From folders of runs to a folder with the report in it."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_tools import write_arm, write_pair, write_run

from wn_rl.commands import report as command
from wn_rl.compare import grid
from wn_rl.compare.arms import Arm
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report.writer import write_report


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def write_runs(tmp_path: Path, **settings: object) -> None:
    """Three seeds of each arm: weight norm 4 points higher."""
    write_pair(tmp_path / "runs", [[1, 2], [2, 3], [3, 4]], [[5, 6], [6, 7], [7, 8]], **settings)


def write_damaged(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    return folder


def grid_runs(out: Path, *seeds: int) -> list[grid.Run]:
    return list(grid.expand([minatar("breakout")], [Arm("weight_norm")], seeds, out))


def markdown_of(tmp_path: Path, *runs: Path, **options: object) -> str:
    """Of the report in tmp_path / "out"; runs: those in tmp_path / "runs" without any."""
    page = write_report(runs or [tmp_path / "runs"], tmp_path / "out", **options)
    return page.with_suffix(".md").read_text()


def test_the_tables_hold_the_known_answers(tmp_path: Path) -> None:
    write_runs(tmp_path)
    markdown_of(tmp_path)
    tables = tmp_path / "out" / "tables"
    findings = rows_of(tables / "findings.csv")
    differences = {row["metric"]: row for row in findings if row["quantity"] == "difference"}
    maximum = differences["maximum"]
    names = ("games", "method", "rate", "baseline", "baseline_rate", "rates", "reading")
    known = ["breakout", "weight norm", "0.0001", "normal", "0.0001", "own and equal", "higher"]
    assert [maximum[name] for name in names] == known
    assert [float(maximum[name]) for name in ("value", "seeds", "baseline_seeds")] == [4, 3, 3]
    assert (float(maximum["low"]), float(maximum["high"])) == pytest.approx((3, 5), abs=0.35)
    assert float(differences["final"]["value"]) == 4
    means = {(row["method"], row["metric"], row["step"]): row for row in findings if row["quantity"] == "mean"}
    assert float(means["normal", "maximum", ""]["value"]) == 3
    curve = [float(means["weight norm", "evaluation", step]["value"]) for step in ("100", "200")]
    assert curve == [6, 7]
    runs = rows_of(tables / "runs.csv")
    assert {(row["frames_per_second"], row["machine"]) for row in runs} == {("90.0", "a CPU")}
    assert [float(row["maximum"]) for row in runs if row["method"] == "normal"] == [2, 3, 4]
    assert len(json.loads((tmp_path / "out" / "configs.json").read_text())) == 6
    evaluations = [
        (row["epoch"], row["step"], float(row["score"]))
        for row in rows_of(tables / "evaluations.csv")
        if (row["method"], row["seed"]) == ("weight norm", "2")
    ]
    assert evaluations == [("1", "100", 6), ("2", "200", 7)]


def test_a_report_is_the_same_every_time_in_all_its_forms(tmp_path: Path) -> None:
    write_runs(tmp_path)
    pages = [write_report([tmp_path / "runs"], tmp_path / out) for out in ("one", "two")]
    assert pages[0].read_text() == pages[1].read_text()
    for page in (pages[0], pages[0].with_suffix(".md")):
        assert "+4.00 [2.67, 5.33]; higher" in page.read_text().replace("\\", "")


def test_every_figure_that_the_markdown_names_is_there(tmp_path: Path) -> None:
    write_runs(tmp_path)
    write_arm(tmp_path / "runs", [[1, 2], [2, 3], [3, 4]], rate=1e-2)
    named = {part.split(")")[0] for part in markdown_of(tmp_path).split("](")[1:]}
    figures = {"overview.png", "rates-overview.png"}
    assert {name.removeprefix("figures/minatar-200-steps-") for name in named} == figures
    for name in named:
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / "out" / name).with_suffix(".svg").exists()


def test_what_is_left_out_and_what_is_missing_is_said(tmp_path: Path) -> None:
    write_runs(tmp_path)
    write_run(tmp_path / "runs" / "gaps", [None, 5], seed=8)
    write_run(tmp_path / "runs" / "failed", [1], seed=9, steps=200, status="failed", message="not finite")
    write_damaged(tmp_path / "runs" / "broken")
    text = markdown_of(tmp_path)
    for sentence in (
        "2 folders left out; 1 run of this kind failed, so what remains of an arm may be its luckier part",
        "1 evaluation without a score",
        "failed at step 100 of 200: not finite",
        "broken/config.json is damaged",
        "Unfinished runs can be compared up to a step that they all reached: --until STEP.",
    ):
        assert sentence in text
    left_out = [row["folder"] for row in rows_of(tmp_path / "out" / "tables" / "runs.csv") if row["left_out"]]
    assert [Path(folder).name for folder in left_out] == ["broken", "failed"]


def test_runs_of_two_lengths_are_two_chapters_that_say_so(tmp_path: Path) -> None:
    write_runs(tmp_path)
    write_arm(tmp_path / "runs", [[1, 2, 3]], game="seaquest")
    text = markdown_of(tmp_path)
    assert "## minatar, 200 steps" in text
    assert "## minatar, 300 steps" in text
    assert text.count("Other minatar runs are compared separately, because they differ in steps.") == 2


def test_rates_can_be_chosen_on_other_runs_and_shared_seeds_are_noted(tmp_path: Path) -> None:
    write_runs(tmp_path)
    write_arm(tmp_path / "runs", [[9, 9]], rate=3e-4)
    assert "The learning rates were chosen on these same runs" in markdown_of(tmp_path)
    write_arm(tmp_path / "rates", [[5]], rate=1e-4)
    write_arm(tmp_path / "rates", [[4]], rate=3e-4)
    text = markdown_of(tmp_path, rates_from=[tmp_path / "rates"])
    assert "on these same runs" not in text
    # not 0.0003, which is best on the fresh runs
    assert "Chosen rates: normal at 0.0001, on 2 other runs of 100 steps." in text
    assert "nothing was chosen: weight norm at 0.0001." in text
    assert "2 runs here share game, arm and seed with one that rates were chosen on." in text


def test_runs_to_choose_rates_from_are_read_whole_and_noted_where_unlike(tmp_path: Path) -> None:
    """The choice falls at the third evaluation, after the step that the reported runs are cut at."""
    write_runs(tmp_path)
    unlike = dataclasses.replace(minatar("breakout").learning, batch_size=32)
    for rate, scores in ((1e-4, [5, 5, 5]), (3e-4, [4, 4, 9])):
        write_arm(tmp_path / "rates", [scores], rate=rate, learning=unlike)
    damaged = write_damaged(tmp_path / "rates" / "damaged")
    text = markdown_of(tmp_path, rates_from=[tmp_path / "rates"], until=100)
    for sentence in (
        "Chosen rates: normal at 0.0003, on 2 other runs of 300 steps",
        "normal: not run here at a chosen rate, so the table has no row for it.",
        "The runs that rates were chosen on also differ from the ones here in learning.batch_size.",
        "normal at 0.0001: 0.00; normal at 0.0003: 1.00",
        f"| {damaged} | could not be read:",
    ):
        assert sentence in text


@pytest.mark.parametrize("named", ["whole", "runs", "run"])
def test_all_grids_are_found_from_their_runs_too_and_count_each_run_once(named: str, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    runs = grid_runs(out, 1, 2, 3)
    for run in runs[:2]:
        write_run(run.path, [1.0], seed=run.config.seed)
    grid.write_grid(runs[:2], ["wn-rl", "compare", "first"])
    grid.write_grid(runs[1:], ["wn-rl", "compare", "the second"])
    folders = {"whole": [out], "runs": [out / "runs"], "run": [run.path for run in runs[:2]]}[named]
    text = markdown_of(tmp_path, *folders)
    for sentence in (
        "1 folder left out",
        "2 of 2 runs have begun: wn-rl compare first",
        "1 of 2 runs have begun: wn-rl compare 'the second'",
        "minatar-breakout-weight_norm-lr0.0003-seed3 | never began |",
    ):
        assert sentence in text


def test_a_run_that_failed_at_its_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    whole, failed = runs = grid_runs(tmp_path / "comparison", 1, 2)
    write_run(whole.path, [1.0])
    failed.path.mkdir(parents=True)
    grid.write_grid(runs, ["wn-rl", "compare"])
    failed.log.parent.mkdir()
    failed.log.write_text("starting\nout of memory\n")
    assert "its log ends with: out of memory" in markdown_of(tmp_path, tmp_path / "comparison")


@pytest.mark.parametrize("text", ["{", "[]", '{"grids": [{"command": [], "runs": [{}]}]}', '{"grids": [3]}'])
def test_a_damaged_grid_is_named_and_the_runs_are_reported(text: str, tmp_path: Path) -> None:
    write_runs(tmp_path)
    (tmp_path / "runs" / "comparison.json").write_text(text)
    assert "comparison.json |" in markdown_of(tmp_path)


def test_a_report_without_the_baseline_says_so(tmp_path: Path) -> None:
    write_arm(tmp_path / "runs", [[1.0]], parameterization="weight_norm")
    assert "No run of normal is here, so nothing is compared with it." in markdown_of(tmp_path)


def test_atari_has_published_scores_and_says_how_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path, suite="atari", game="enduro")
    assert command.run([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-videos"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.md").read_text()
    for sentence in (
        "| Enduro | weight norm at 0.0001 | 7.00 \\[6.00, 8.00\\] | 3 |",
        "| Enduro | paper: weight norm | 1,448 |",
        "were not measured as ours were",
        "These runs made 200 agent steps",
        "five-minute cap",
        "These runs cut an episode at 30 minutes",
        "evaluation.period 100 (paper 250,000)",
        "Salimans & Kingma 2016, Table 3",
    ):
        assert sentence in text


def test_a_new_report_takes_away_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_runs(tmp_path, norms=[1.0, 2.0])
    mine = [out / "figures" / "mine.png", out / "tables" / "mine.csv", out / "videos" / "game.mp4"]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    markdown_of(tmp_path)
    assert (out / "tables" / "norms.csv").exists()
    shutil.rmtree(tmp_path / "runs")
    write_runs(tmp_path)
    markdown_of(tmp_path)
    after = {path.relative_to(out) for path in out.glob("*/*")} - {path.relative_to(out) for path in mine}
    assert all(file.read_text() == "mine" for file in mine)
    assert not any("norm" in path.name for path in after)
    assert set((out / "files.txt").read_text().split("\n")) == {"", *map(str, after)}


def test_a_run_s_own_folder_is_no_place_for_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [1.0])
    with pytest.raises(UserError, match="is the folder of a run: name another one"):
        write_report([run], run)


def test_videos_are_of_the_best_run_of_each_arm(tmp_path: Path) -> None:
    write_runs(tmp_path)
    seeds = []

    def record(run: Path, video: Path) -> str:
        seeds.append(json.loads((run / "config.json").read_text())["config"]["seed"])
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(b"mp4")
        return "return 3"

    text = markdown_of(tmp_path, record_episode=record)
    assert seeds == [3, 3]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:video/mp4;base64,bXA0") == 2
    assert "Breakout, weight norm at 0.0001, training seed 3: return 3" in page
    assert "(videos/minatar-200-steps-breakout-weight-norm-at-0.0001.mp4)" in text


def test_a_video_that_fails_in_any_way_is_one_line_of_the_report(tmp_path: Path) -> None:
    def broken(run: Path, video: Path) -> str:
        raise RuntimeError("size mismatch")

    write_runs(tmp_path)
    line = "No video of weight norm at 0.0001 on Breakout:"
    assert f"{line} size mismatch" in markdown_of(tmp_path, record_episode=broken)
    command.run([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])  # these runs have no network
    assert line in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent", "--out", "out"], "there is no run in absent"),
        (["empty", "--out", "out"], "there is no run in empty"),
        (["runs", "--rates-from", "empty", "--out", "out"], "there is no run in empty"),
        (["runs", "--until", "900", "--out", "out"], "none of the runs can be compared"),
        (["runs", "--until", "0", "--out", "out"], "--until must be at least 1"),
        (["runs", "--out", "file"], "file is a file"),
        (["--out", "out"], "name the folders of the runs"),
        (["runs"], "--out"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_writes_nothing(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=says) as caught:
        command.run(arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_report_knows_neither_agents_nor_envs() -> None:
    code = "import sys, wn_rl.report.writer; print([m for m in sys.modules if m.startswith('wn_rl.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "wn_rl.report.writer" in loaded
    assert "wn_rl.agents" not in loaded
    assert "wn_rl.envs" not in loaded
