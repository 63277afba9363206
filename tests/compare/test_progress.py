"""What is said of runs while they run: read from metrics files written by hand."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from grid_tools import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from wn_rl.compare import progress
from wn_rl.compare.grid import Entry
from wn_rl.compare.progress import Display, Row, cells, duration, summary, survey, table, total_seconds
from wn_rl.run.folder import RunFolder


def write_rows(run: Path, *rows: Any) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def read_progress(run: Path) -> progress.Progress:
    progress._read_progress.cache_clear()
    return progress._progress_in(RunFolder(run))


def trained(step: int, seconds: float) -> dict[str, float]:
    return {"step": step, "seconds": seconds, "frames_per_second": 1.0}


def scored(step: int, score: float | None) -> dict[str, float | None]:
    return {"step": step, "eval/return_mean": score}


def test_progress_is_the_last_step_the_last_score_and_the_speed_between_rows(tmp_path: Path) -> None:
    rows = [trained(100, 10), scored(150, 1.5), trained(200, 15), scored(250, None), trained(300, 20)]
    assert read_progress(write_rows(tmp_path, *rows)) == (300, 1.5, 20.0)
    assert read_progress(write_rows(tmp_path, trained(100, 10))) == (100, None, 10.0)
    assert read_progress(write_rows(tmp_path, trained(100, 10), trained(100, 10))) == (100, None, None)


def test_what_is_damaged_or_half_written_is_passed_over(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "none") == (0, None, None)
    (tmp_path / "folder" / "metrics.jsonl").mkdir(parents=True)
    assert read_progress(tmp_path / "folder") == (0, None, None)
    write_rows(tmp_path, 3, [], None, {"step": "x"}, trained(100, 10), {"step": 120, "seconds": None})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\x00\xff\n{"step": 9\n{"step": 500')
    assert read_progress(tmp_path) == (120, None, 10.0)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_an_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as run:
        (Path(run) / "metrics.jsonl").write_bytes(data)
        read_progress(Path(run))


def test_the_speed_is_that_of_the_last_rows(tmp_path: Path) -> None:
    slow, fast = (
        [trained(step, step) for step in range(1, 101)],
        [trained(100 + 5 * i, 100 + i) for i in range(1, 200)],
    )
    assert read_progress(write_rows(tmp_path, *slow, *fast)) == (1095, None, pytest.approx(5.0))


def entries_with(tmp_path: Path, *states: Any) -> list[Entry]:
    runs = make_grid(tmp_path, seeds=len(states))
    return [Entry(run, state) for run, state in zip(runs, states, strict=True)]


def test_a_run_without_a_speed_of_its_own_takes_that_of_its_like(tmp_path: Path) -> None:
    entries = entries_with(tmp_path, "finished", "finished", "running", "waiting")
    for entry, row in zip(entries, [trained(1000, 100), trained(1000, 50), trained(500, 100)], strict=False):
        write_rows(entry.run.path, row)
    rows = survey(entries)
    assert rows[2].seconds_left == pytest.approx(100)
    assert rows[3].seconds_left == pytest.approx((100 + 50 + 200) / 3)  # the mean time of the three
    assert total_seconds(rows, 1) == pytest.approx(100 + 350 / 3)
    assert total_seconds(rows, 2) == pytest.approx(350 / 3)  # no sooner than the longest
    assert total_seconds(rows[:2], 1) == 0


def test_without_any_speed_no_time_is_given(tmp_path: Path) -> None:
    rows = survey(entries_with(tmp_path, "waiting", "waiting"))
    assert total_seconds(rows, 2) is None
    assert summary(rows, 2) == "2 runs: 2 waiting"


def test_a_survey_sees_what_is_new(tmp_path: Path) -> None:
    entries = entries_with(tmp_path, "running")
    assert survey(entries)[0].step == 0
    write_rows(entries[0].run.path, trained(100, 1))
    assert survey(entries)[0].step == 100
    write_rows(entries[0].run.path, trained(100, 1), trained(200, 2))
    assert survey(entries)[0].step == 200


def rows_of_every_kind(tmp_path: Path) -> list[Row]:
    entries = entries_with(tmp_path, "waiting", "finished", "failed", "running")
    entries[2].message = "it was killed by signal 9 (Killed)"
    write_rows(entries[3].run.path, trained(500, 50), scored(500, 3.25))
    write_rows(entries[1].run.path, trained(1000, 100))
    return survey(entries)


def test_cells_and_summary(tmp_path: Path) -> None:
    rows = rows_of_every_kind(tmp_path)
    name = "minatar-breakout-weight_norm-lr0.0003-seed4"
    assert cells(rows[3]) == (name, "running", "500/1,000", "3.25", "10", "0:00:50")
    assert cells(rows[1])[1:] == ("finished", "1,000/1,000", "", "10", "")
    assert summary(rows, 2) == "4 runs: 1 running, 1 failed, 1 waiting, 1 finished; about 0:01:40 left"
    assert [duration(seconds) for seconds in (0, 59.6, 3600, 360_000)] == [
        "0:00:00",
        "0:01:00",
        "1:00:00",
        "100:00:00",
    ]


def test_the_table_shows_first_what_goes_on(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table(rows_of_every_kind(tmp_path), 2))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("4 runs: 1 running")
    assert [line.split()[1] for line in lines[2:]] == ["running", "failed:", "waiting", "finished"]
    assert "killed by signal 9" in lines[3]


def test_where_there_is_no_terminal_changes_are_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = entries_with(tmp_path, "running", "waiting")
    display = Display(entries, 1)
    display.update()
    display.update()
    entries[0].state = "finished"
    entries[1].state = "running"
    display.update()
    first, second = (entry.run.name for entry in entries)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{first}: running", f"{second}: waiting", f"{first}: finished", f"{second}: running"]
    monkeypatch.setattr(progress, "_LINES_SECONDS", 0.0)
    write_rows(entries[1].run.path, trained(500, 50))
    display = Display(entries, 1)
    display.update()
    assert f"{second}  running  step 500/1,000  steps/s 10  left 0:00:50" in capsys.readouterr().out.splitlines()
    display.close()
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 runs: 1 running, 1 finished")


def test_a_terminal_has_a_live_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    entries = entries_with(tmp_path, "running")
    display = Display(entries, 1)
    display.update()
    entries[0].state = "finished"
    display.close()
    assert "1 run: 1 finished" in capsys.readouterr().out
