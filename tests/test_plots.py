import json
from pathlib import Path

import pytest

from wn_rl.config import to_json
from wn_rl.errors import UserError
from wn_rl.plots import plot_learning_curves
from wn_rl.presets import minatar
from wn_rl.report.records import read_rows, series


def make_run(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": to_json(minatar("breakout"))}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_series_leaves_out_rows_without_the_metric(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        [{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}, {"step": 4, "loss": 5}],
    )
    assert series(read_rows(run), "loss") == ([1, 4], [2.0, 5])


def test_a_figure_is_written_for_runs_with_and_without_tests(tmp_path: Path) -> None:
    tested = make_run(
        tmp_path / "tested",
        [{"step": 5, "train/return_last_100": 1.0}, {"step": 10, "eval/return_mean": 2.0, "eval/return_std": 1.0}],
    )
    untested = make_run(tmp_path / "untested", [{"step": 5, "train/return_last_100": 1.0}])
    figure = tmp_path / "new" / "figure.png"
    plot_learning_curves([tested, untested], figure, baseline=0.5)
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_metrics_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no metrics"):
        plot_learning_curves([tmp_path], tmp_path / "figure.png")
