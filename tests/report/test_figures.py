import json
from pathlib import Path

import pytest
from run_tools import write_rows

from wn_rl.config import to_json
from wn_rl.errors import UserError
from wn_rl.presets import minatar
from wn_rl.report.figures import plot_learning_curves


def make_run(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": to_json(minatar("breakout"))}))
    write_rows(folder, rows)
    return folder


def test_learning_curves_of_runs_with_and_without_evaluations(tmp_path: Path) -> None:
    tested = make_run(
        tmp_path / "tested",
        [{"step": 5, "train/return_last_100": 1.0}, {"step": 10, "eval/return_mean": 2.0, "eval/return_std": 1.0}],
    )
    untested = make_run(tmp_path / "untested", [{"step": 5, "train/return_last_100": 1.0}])
    figure = plot_learning_curves([tested, untested], baseline=0.5)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["random policy: 0.50", *["breakout, weight_norm, seed 1"] * 2]
    assert axes.lines[0].get_xydata().tolist() == [[5, 1]]
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_metrics_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no metrics"):
        plot_learning_curves([tmp_path])
