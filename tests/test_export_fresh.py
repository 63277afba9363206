"""An agent trained here and exported gives the same Q-values in fresh environments that know nothing of wn_rl."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from wn_rl.envs.as_gymnasium import GameEnv
from wn_rl.export import load_exported

pytestmark = pytest.mark.slow  # they install torch and onnxruntime

TORCH = f"torch=={torch.__version__.partition('+')[0]}"
FROM_TORCH = """
observations = load_file("observations.safetensors")["observations"]
q_values = ExportedAgent(FOLDER).q_values(observations)
Path("q_values.json").write_text(json.dumps(q_values.tolist()))  # safetensors could not write without numpy
"""
FROM_ONNX = """
import numpy
observations = numpy.load("observations.npy")
{snippet}
numpy.save("q_values.npy", q_values)
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an agent that trained and was exported by the command line."""
    folder = tmp_path_factory.mktemp("agent")
    settings = [
        "--learning.replay-start",
        "1000",
        "--learning.epsilon-steps",
        "4000",
        "--evaluation.period",
        "5000",
    ]
    settings += ["--evaluation.steps", "1000", "--evaluation.video-period", "0", "--steps", "10000"]
    run = str(folder / "run")
    for command in (
        ["train", "breakout", "--suite", "minatar", *settings, "--run-dir", run],
        ["evaluate", run],
        ["export", run, "--out", str(folder / "exported")],
    ):
        subprocess.run([sys.executable, "-m", "wn_rl.cli", *command], check=True, capture_output=True)
    return folder / "exported"


def game_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T, 1, 4, 10, 10] of greedy games, at least 200, and the agent's Q-values [T, A] of them."""
    network = load_exported(folder).network
    env = GameEnv("minatar", "breakout")
    observation, _ = env.reset(seed=1)
    observations, values = [], []
    while len(values) < 200:
        with torch.no_grad():
            q = network(torch.from_numpy(observation)[None, None])[0]
        observations.append(observation[None])
        values.append(q.numpy())
        observation, _, terminated, truncated, _ = env.step(np.int64(q.argmax()))
        if terminated or truncated:
            observation, _ = env.reset()
    return np.stack(observations), np.stack(values)


def snippets(folder: Path) -> list[str]:
    """The Python of the model card."""
    card = (folder / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def fresh_python(folder: Path, *packages: str) -> Path:
    """The interpreter of a new virtual environment with these packages alone."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not names & {"wn-rl", "wn_rl", "gymnasium", "stable_baselines3"}
    return python


def run_in(folder: Path, python: Path, source: str) -> None:
    (folder / "script.py").write_text(source)
    done = subprocess.run([python, "-I", "script.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_with_torch_and_safetensors_alone(agent: Path, tmp_path: Path) -> None:
    observations, expected = game_of(agent)
    safetensors.numpy.save_file({"observations": observations}, tmp_path / "observations.safetensors")
    (snippet,) = (source for source in snippets(agent) if "class ExportedAgent" in source)
    python = fresh_python(tmp_path / "venv", TORCH, "safetensors")
    run_in(tmp_path, python, snippet + FROM_TORCH.replace("FOLDER", repr(str(agent))))
    found = np.array(json.loads((tmp_path / "q_values.json").read_text()), dtype=np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_with_onnxruntime_alone(agent: Path, tmp_path: Path) -> None:
    observations, expected = game_of(agent)
    np.save(tmp_path / "observations.npy", observations)
    (snippet,) = (source for source in snippets(agent) if "import onnxruntime" in source)
    python = fresh_python(tmp_path / "venv", "onnxruntime")
    run_in(tmp_path, python, FROM_ONNX.format(snippet=snippet.replace("model.onnx", str(agent / "model.onnx"))))
    found = np.load(tmp_path / "q_values.npy")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
