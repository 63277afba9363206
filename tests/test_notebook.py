"""A notebook: progress is seen, a run trains in a thread too, and figures are shown."""

import json
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = [
    """import dataclasses, threading, wn_rl
from wn_rl.presets import minatar
from wn_rl.report.figures import plot_learning_curves
config = minatar("breakout")
learning = dataclasses.replace(config.learning, replay_start=500, replay_capacity=3000)
config = dataclasses.replace(config, steps=3000, log_period=1000, learning=learning)
assert wn_rl.train(config, "first").status == "finished\"""",
    """outcomes = []
thread = threading.Thread(target=lambda: outcomes.append(wn_rl.train(config, "second")))
thread.start()
thread.join()
assert outcomes[0].status == "finished\"""",
    "plot_learning_curves(['first', 'second'])",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_notebook_trains_in_a_cell_and_in_a_thread_and_shows_a_figure(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    in_cell, in_thread, figure = (json.dumps(cell.outputs) for cell in notebook.cells)
    for output in (in_cell, in_thread):
        assert all(shown in output for shown in ("preset  minatar, but", "step 2,000/3,000  left", "finished"))
        assert "Traceback" not in output
    assert "image/png" in figure
