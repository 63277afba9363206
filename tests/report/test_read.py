import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_tools import write_run
from run_tools import write_rows

from wn_rl.compare.arms import Arm
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report.read import read_run, read_runs, series


def test_a_run_says_what_it_was_and_scored(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", [1.0, None, 3.0], parameterization="weight_norm", rate=3e-4, seed=7))
    which = run.suite, run.game, run.arm, run.seed
    assert which == ("minatar", "breakout", Arm("weight_norm", 3e-4), 7)
    assert (run.steps, run.evaluation_period) == (300, 100)
    np.testing.assert_equal(run.scores(4), [1, np.nan, 3, np.nan])
    assert (run.status.status, run.last_step) == ("finished", 300)


@pytest.mark.parametrize(
    ("parameterization", "options", "label"),
    [
        ("weight_norm", {"log_scale": 3.0}, "weight norm (log scale 3)"),
        ("normal", {"initialization": "data_dependent"}, "normal (initialization data_dependent)"),
        ("normal", {"initialization": "torch"}, "normal"),
        ("weight_norm", {"initialization": "data_dependent"}, "weight norm"),
    ],
)
def test_options_make_another_method(
    parameterization: str, options: dict[str, Any], label: str, tmp_path: Path
) -> None:
    network = dataclasses.replace(minatar("breakout").network, **options)
    folder = write_run(tmp_path / "a", [1.0], parameterization=parameterization, network=network)
    method = read_run(folder).arm.method
    assert method == Arm(parameterization, None, tuple(options.items()) if "(" in label else ())
    assert method.label == label


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", '"3"'])
def test_what_is_no_finite_number_is_a_missing_score(value: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [1.0, 2.0])
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"eval/return_mean": 2.0', f'"eval/return_mean": {value}'))
    np.testing.assert_equal(read_run(folder).scores(2), [1, np.nan])


def test_steps_of_many_lanes_belong_to_the_epoch_they_crossed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [], steps=200)
    rows = [{"step": 103, "eval/return_mean": 1.0}, {"step": 200, "eval/return_mean": 2.0}]
    write_rows(folder, rows)
    assert read_run(folder).scores(2).tolist() == [1, 2]


def test_a_row_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [1.0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "eval/ret')
    assert read_run(folder).last_step == 100


def test_series_leaves_out_rows_without_the_metric(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}, {"step": 4, "loss": 5}]
    assert series(rows, "loss") == ([1, 4], [2.0, 5])


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged: it must be of type dict"),
        ("config.json", "{}", "config.json has no config"),
        ("config.json", '{"config": {"suite": "atari"}}', "config.json has no game"),
        ("config.json", '{"config": 3}', "config must be of type dict"),
        ("metrics.jsonl", "", "has no metrics"),
        ("metrics.jsonl", "{\n{}\n", "metrics.jsonl is damaged"),
        ("metrics.jsonl", '{"loss": 3}\n', "line 0 has no step"),
        ("metrics.jsonl", "3\n", "line 0 must be of type dict"),
        ("metrics.jsonl", "\xff\n", "metrics.jsonl is damaged"),
        ("status.json", "{", "status.json is damaged"),
    ],
)
def test_a_damaged_run_is_named_skipped_and_the_rest_is_read(
    file: str, text: str, says: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "whole", [1.0])
    damaged = write_run(tmp_path / "damaged", [1.0])
    (damaged / file).unlink()
    if text:
        (damaged / file).write_bytes(text.encode("latin-1"))
    runs, left_out = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["whole"]
    assert [entry.folder for entry in left_out] == [damaged]
    assert says in left_out[0].reason
    with pytest.raises(UserError, match=rf"none of the runs could be read: .*{says}"):
        read_runs([damaged])


def test_a_run_that_was_killed_before_its_first_step_is_not_started(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [], steps=200)
    (folder / "status.json").unlink()
    run = read_run(folder)
    assert (run.status.status, run.last_step) == ("not started", 0)


def test_runs_are_found_at_any_depth_each_once_and_not_inside_runs(tmp_path: Path) -> None:
    deep = write_run(tmp_path / "x" / "y" / "deep", [1.0])
    write_run(tmp_path / "flat", [1.0])
    write_run(tmp_path / "flat" / "inside", [1.0])
    (tmp_path / "loop").symlink_to(tmp_path)
    elsewhere = write_run(tmp_path.with_name("elsewhere") / "linked", [1.0]).parent
    (tmp_path / "scratch").symlink_to(elsewhere)
    runs, _ = read_runs([tmp_path, deep, tmp_path / "x"])
    assert sorted(run.folder.name for run in runs) == ["deep", "flat", "linked"]


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "whole", [1.0])
    locked = tmp_path / "locked"
    locked.mkdir()
    listing = os.scandir

    def refuse(path: str) -> object:  # the tests may run as root, whom no mode stops
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    _, left_out = read_runs([tmp_path])
    assert [entry.folder for entry in left_out] == [locked]


def test_a_place_without_runs_is_one_clear_line(tmp_path: Path) -> None:
    write_run(tmp_path / "whole", [1.0])
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "absent", tmp_path / "whole" / "config.json"):
        with pytest.raises(UserError, match="there is no run in") as caught:
            read_runs([tmp_path / "whole", wrong])
        assert str(wrong) in str(caught.value)
        assert "\n" not in str(caught.value)
