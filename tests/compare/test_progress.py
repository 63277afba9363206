"""What is said of runs while they run: read from metrics files written by hand."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from grid_tools import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from run_tools import write_rows

from wn_rl.compare import progress
from wn_rl.compare.grid import Entry
from wn_rl.compare.progress import Display, Progress, in_words, progress_of, seconds_left, summary


def entries_with(out: Path, *states: Any) -> list[Entry]:
    return [Entry(run, state) for run, state in zip(make_grid(out, seeds=len(states)), states, strict=True)]


def progress_with(out: Path, *rows: Any) -> tuple[int, float | None, float | None]:
    """Step, score and speed of a run with these rows."""
    (entry,) = entries_with(out, "running")
    write_rows(entry.run.path, rows)
    found = progress_of(entry)
    return found.step, found.score, found.speed


def trained(step: int, seconds: float) -> dict[str, float]:
    return {"step": step, "seconds": seconds, "frames_per_second": 1.0}


def scored(step: int, score: float | None) -> dict[str, float | None]:
    return {"step": step, "eval/return_mean": score}


def test_progress_is_the_last_step_the_last_score_and_the_speed_between_rows(tmp_path: Path) -> None:
    rows = [trained(100, 10), scored(150, 1.5), trained(200, 15), scored(250, None), trained(300, 20)]
    assert progress_with(tmp_path, *rows) == (300, 1.5, 20.0)
    assert progress_with(tmp_path, trained(100, 10)) == (100, None, 10.0)
    assert progress_with(tmp_path, trained(100, 10), trained(100, 10)) == (100, None, None)
    slow = [trained(step, step) for step in range(1, 101)]
    fast = [trained(100 + 5 * i, 100 + i) for i in range(1, 200)]
    assert progress_with(tmp_path, *slow, *fast) == (1095, None, pytest.approx(5.0))  # of the last rows


def test_without_metrics_and_with_damaged_ones_nothing_is_known(tmp_path: Path) -> None:
    (entry,) = entries_with(tmp_path, "waiting")
    assert progress_of(entry) == Progress(entry, 0, None, None)
    assert progress_with(tmp_path, trained(100, 10), {"step": "x"}) == (0, None, None)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_an_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as out:
        (entry,) = entries_with(Path(out), "running")
        write_rows(entry.run.path, [])
        (entry.run.path / "metrics.jsonl").write_bytes(data)
        progress_of(entry)


def test_a_run_without_a_speed_of_its_own_takes_that_of_its_like(tmp_path: Path) -> None:
    entries = entries_with(tmp_path, "finished", "finished", "running", "waiting")
    for entry, row in zip(entries, [trained(1000, 100), trained(1000, 50), trained(500, 100)], strict=False):
        write_rows(entry.run.path, [row])
    found = [progress_of(entry) for entry in entries]
    whole = (100 + 50 + 200) / 3  # the mean time of the three
    assert seconds_left(found, 1) == pytest.approx(100 + whole)
    assert seconds_left(found, 2) == pytest.approx(whole)  # no sooner than the longest
    assert seconds_left(found[:2], 1) == 0


def test_without_any_speed_no_time_is_given(tmp_path: Path) -> None:
    found = [progress_of(entry) for entry in entries_with(tmp_path, "waiting", "waiting")]
    assert seconds_left(found, 2) is None
    assert summary(found, 2) == "2 runs: 2 waiting"


def test_runs_and_their_summary_in_words(tmp_path: Path) -> None:
    entries = entries_with(tmp_path, "waiting", "finished", "failed", "running")
    entries[2].message = "it was killed by signal 9 (Killed)"
    write_rows(entries[3].run.path, [trained(500, 50), scored(500, 3.25)])
    write_rows(entries[1].run.path, [trained(1000, 100)])
    found = [progress_of(entry) for entry in entries]
    name = "minatar-breakout-weight_norm-lr0.0003-seed"
    assert in_words(found[3]) == f"{name}4  running  step 500/1,000  score 3.25  steps/s 10"
    assert in_words(found[1]) == f"{name}2  finished  step 1,000/1,000  steps/s 10"
    assert in_words(found[2]).startswith(f"{name}3  failed: it was killed by signal 9 (Killed)  step 0/1,000")
    assert summary(found, 2) == "4 runs: 1 running, 1 failed, 1 waiting, 1 finished; about 0:01:40 left"


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "0:01:00"), (3600, "1:00:00"), (360_000, "100:00:00")])
def test_the_time_left_is_in_hours_minutes_and_seconds(seconds: float, text: str, tmp_path: Path) -> None:
    (entry,) = entries_with(tmp_path, "running")
    assert summary([Progress(entry, 0, None, 1000 / seconds)], 1) == f"1 run: 1 running; about {text} left"


def test_changes_are_printed_once_and_running_runs_each_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = entries_with(tmp_path, "running", "waiting")
    display = Display(entries, 1)
    display.update()
    display.update()
    entries[0].state, entries[1].state = "finished", "running"
    display.update()
    first, second = (entry.run.name for entry in entries)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{first}: running", f"{second}: waiting", f"{first}: finished", f"{second}: running"]
    monkeypatch.setattr(progress, "_PERIOD_SECONDS", 0.0)
    write_rows(entries[1].run.path, [trained(500, 50)])
    display = Display(entries, 1)
    display.update()
    assert f"{second}  running  step 500/1,000  steps/s 10" in capsys.readouterr().out.splitlines()
    display.print_progress()
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 runs: 1 running, 1 finished")
