"""An exported agent gives the same Q-values in fresh environments that know nothing of wn_rl."""

import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from made_agents import snippet_of
from made_runs import make_run, states_of
from run_tools import wn_rl

from wn_rl.presets import minatar

pytestmark = pytest.mark.slow  # they install torch and onnxruntime

# safetensors could not write without numpy.
FROM_TORCH = """
observations = load_file("observations.safetensors")["observations"]
{snippet}
import json
open("q_values.json", "w").write(json.dumps(q_values.tolist()))
"""
FROM_ONNX = """
import json, numpy
observations = numpy.load("observations.npy")
{snippet}
open("q_values.json", "w").write(json.dumps(q_values.tolist()))
"""


@pytest.mark.parametrize(
    ("packages", "words", "script"),
    [
        ([f"torch=={torch.__version__.partition('+')[0]}", "safetensors"], "import load_file", FROM_TORCH),
        (["onnxruntime"], "import onnxruntime", FROM_ONNX),
    ],
    ids=["torch", "onnxruntime"],
)
def test_the_model_card_needs_no_wn_rl(packages: list[str], words: str, script: str, tmp_path: Path) -> None:
    config, folder = minatar("breakout"), tmp_path / "agent"
    network, states = make_run(tmp_path / "run", config), states_of(config, 200)
    assert wn_rl("export", str(tmp_path / "run"), "--out", str(folder)) == 0
    safetensors.torch.save_file({"observations": states}, folder / "observations.safetensors")
    np.save(folder / "observations.npy", states.numpy())

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not names & {"wn-rl", "wn_rl", "gymnasium", "stable_baselines3"}

    snippet = snippet_of(folder, words)
    imports = "from safetensors.torch import load_file\n" if words == "import load_file" else ""
    (folder / "script.py").write_text(imports + script.format(snippet=snippet))
    done = subprocess.run([python, "-I", "script.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.tensor(json.loads((folder / "q_values.json").read_text()))
    with torch.no_grad():
        torch.testing.assert_close(found, network(states), atol=1e-5, rtol=1e-5)
