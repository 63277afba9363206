"""`wn-rl export`: a folder with a trained agent to share or deploy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wn_rl.commands._runs import RunPath
from wn_rl.flags import parse_flags
from wn_rl.runs import RunFolder


@dataclass(frozen=True)
class Export:
    """Write a trained agent as plain weights (safetensors), ONNX and a model card into a new folder."""

    run: RunPath
    """The run's folder."""
    out: Path
    """The folder to write."""
    network: Literal["best", "latest"] = "best"
    """The network of the best evaluation in training, or that of the last checkpoint."""
    onnx: bool = True
    """Also write model.onnx, which needs `pip install "wn-rl[export]"`."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl export`."""
    options = parse_flags(Export, arguments)
    from wn_rl.agents.evaluation import make_test_environments
    from wn_rl.agents.training import load_run
    from wn_rl.export import Agent, evaluations_of_run, export

    folder, loaded = RunFolder(options.run), load_run(options.run, options.network)
    config, name = loaded.config, loaded.name
    environments = make_test_environments(config, num_envs=1, seed=0)
    environments.close()
    spec, record = environments.spec, folder.read_config()
    record.pop("command", None)  # it may name local paths
    agent = Agent(loaded.network, config.network.name, spec.dtype, spec.action_meanings, name, record)
    evaluations = evaluations_of_run(folder.path, name)
    curve_of = folder.path if folder.metrics_file.exists() else None
    export(agent, options.out, evaluations=evaluations, curve_of=curve_of, onnx=options.onnx)
    print(f"{options.out}: {config.game} by the {name}; see its README.md")
    return 0
