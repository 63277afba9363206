"""`wn-rl export`: a folder with a trained agent to share or deploy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wn_rl.commands._shared import RunPath, parse_flags
from wn_rl.run.folder import open_run


@dataclass(frozen=True)
class Export:
    """Write a trained agent as plain weights (safetensors), ONNX and a model card into a new folder."""

    run: RunPath
    """The run's folder."""
    out: Path
    """The folder to write."""
    network: Literal["best", "latest"] = "best"
    """The network of the best test in training, or that of the last checkpoint."""
    onnx: bool = True
    """Also write model.onnx, which needs `pip install "wn-rl[export]"`."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl export`."""
    options = parse_flags(Export, arguments)
    import torch

    from wn_rl.agents.evaluation import make_test_environments
    from wn_rl.export import Agent, export, scores_of_run
    from wn_rl.run.training import load_network

    folder, record, config = open_run(options.run)
    network, name = load_network(config, folder, options.network, torch.device("cpu"))
    assert isinstance(network, torch.nn.Sequential)
    environments = make_test_environments(config, num_envs=1, seed=0)
    spec = environments.spec
    environments.close()
    public = {part: value for part, value in record.items() if part != "command"}  # which may tell paths
    agent = Agent(network, spec.dtype, spec.action_meanings, name, public)
    scores = scores_of_run(folder.path, name)
    curve_of = folder.path if folder.metrics_file.exists() else None
    export(agent, options.out, scores=scores, curve_of=curve_of, onnx=options.onnx)
    print(f"{options.out}: {config.game} by the {name}; see its README.md")
    return 0
