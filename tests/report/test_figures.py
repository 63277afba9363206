import json
from pathlib import Path
from typing import Any

import pytest
from run_tools import QUICK, write_rows

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
    figure: Any = plot_learning_curves([tested, untested], baseline=0.5)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["random policy: 0.50", *["breakout, weight_norm, seed 1"] * 2]
    assert axes.lines[0].get_xydata().tolist() == [[5, 1]]
    figure.savefig(tmp_path / "figure.png")
    pictures = (tmp_path / "figure.png").read_bytes(), figure._repr_png_()  # the second is what notebooks show
    assert all(picture[:4] == b"\x89PNG" for picture in pictures)
    for path in (tested, str(tested)):
        assert len(plot_learning_curves(path).axes[0].get_legend().get_texts()) == 1


@pytest.mark.slow
def test_a_notebook_trains_in_a_thread_and_shows_progress_and_curves(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "import threading\nfrom wn_rl.cli import main\nfrom wn_rl.report.figures import plot_learning_curves",
        f"thread = threading.Thread(target=main, args=({['train', 'breakout', *QUICK, '--run-dir', 'run']!r},))\n"
        "thread.start()\nthread.join()",
        "plot_learning_curves('run')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.get_backend())",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, trained, curves, plotted = ([dict(output) for output in cell.outputs] for cell in notebook.cells)
    assert "step 400/600" in "".join(output.get("text", "") for output in trained)
    assert [list(output["data"]) for output in curves] == [["text/plain", "image/png"]]
    assert "inline" in plotted[0]["text"]
    assert "image/png" in plotted[-1]["data"]


def test_a_folder_without_metrics_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no metrics"):
        plot_learning_curves([tmp_path])
