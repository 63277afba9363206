"""`wn-rl export`: a folder with a trained agent to share or deploy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wn_rl.commands._shared import RunPath, parse_flags
from wn_rl.run.folder import RunFolder


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
    from wn_rl.export import Agent, export
    from wn_rl.report.figures import plot_learning_curves
    from wn_rl.run.loading import load_run

    folder = RunFolder(options.run)
    record, loaded = folder.read_config(), load_run(options.run, options.network, open_game=False)
    record.pop("command", None)  # it may name local paths
    config, spec = loaded.config, loaded.spec
    agent = Agent(loaded.network, config.network.name, spec.dtype, spec.action_meanings, loaded.name, record)
    curve = plot_learning_curves([options.run]) if folder.metrics_file.exists() else None
    export(agent, options.out, run_dir=options.run, curve=curve, onnx=options.onnx)
    print(f"{options.out}: {config.game} by the {loaded.name}; see its README.md")
    return 0
