"""The whole folder of an exported agent: weights, ONNX file, learning curve and model card."""

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from matplotlib.figure import Figure
from torch import nn

from wn_rl import __version__
from wn_rl.errors import UserError, say
from wn_rl.export.agent import CONFIG, WEIGHTS, Agent, read_agent, write_agent
from wn_rl.nn.layers import layers_of
from wn_rl.run.files import MAX_LINES, parse_json, read_file, replace_file, require_form, sync_folder

CARD, CURVE, ONNX, REPLAY = "README.md", "curve.png", "model.onnx", "replay.mp4"  # the hub plays the last
FILES = (CARD, CONFIG, CURVE, ONNX, REPLAY, WEIGHTS)
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # torch's exporter needs the first two, the check the last
_EVALUATION = {
    **{"policy": str, "protocol": str, "epsilon": float, "returns": [float]},
    **{"return_mean": float, "return_std": float},
}
PLAIN_LAYERS = (nn.Conv2d, nn.Linear, nn.ReLU, nn.Tanh, nn.Flatten)  # which torch prints as they are made


def export(
    agent: Agent,
    folder: Path,
    *,
    run_dir: Path | None = None,
    curve: Figure | None = None,
    onnx: bool = True,
) -> None:
    """Write the agent into a new folder at once: it is there whole or not at all.

    run_dir: the run that trained it; the model card has what `wn-rl evaluate` found. curve: its learning curve.
    onnx: whether to write model.onnx.

    Raises:
        UserError: the folder is not empty, the network could not be exported, or packages are missing.
    """
    if layers_of(agent.network):
        raise UserError("layer norm is in no plain torch layer: an agent with it cannot be exported")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: choose a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        write_agent(agent, new)
        if onnx:
            write_onnx(read_agent(new), new / ONNX)
        if curve is not None:
            curve.savefig(new / CURVE, dpi=130)
        evaluations = [] if run_dir is None else _evaluations(run_dir, agent.name)
        videos = [] if run_dir is None else sorted((run_dir / "videos").glob("step_*.mp4"))
        if videos:
            replace_file(new / REPLAY, read_file(videos[-1], MAX_LINES))
        replace_file(new / CARD, _card(agent, evaluations, exported_files(new)).encode())
        os.replace(new, folder)
    sync_folder(folder.parent)


def exported_files(folder: Path) -> list[str]:
    """The names of an exported agent's files. UserError unless the agent can be read from them."""
    read_agent(folder)
    return [name for name in FILES if (folder / name).is_file() and not (folder / name).is_symlink()]


def write_onnx(agent: Agent, path: Path) -> None:
    """Write the network: "observations" [batch, K, *O] as the environment gives them -> "q_values" [batch, A].

    The scaling of observations is inside, and the batch has any size. The agent is on the CPU, as a loaded one is.

    Raises:
        UserError: packages are missing, or onnxruntime's values differ from the network's by more than 1e-5.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'ONNX needs more packages ({", ".join(missing)}): pip install "wn-rl[export]"')
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it names packages that it could use
    states = torch.zeros((3, *agent.preprocess.stacked_shape), dtype=getattr(torch, agent.dtype))
    with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecations
        program = torch.onnx.export(
            agent.network,
            (states,),
            dynamo=True,
            input_names=["observations"],
            output_names=["q_values"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    config = agent.run.get("config", {})
    about = {name: str(config[name]) for name in ("suite", "game", "parameterization") if name in config}
    about |= {"network": agent.name, "architecture": agent.architecture, "actions": json.dumps(agent.actions)}
    program.model.metadata_props.update(about, wn_rl_version=__version__)
    program.save(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    agent.check(lambda states: torch.from_numpy(session.run(None, {"observations": states.numpy()})[0]), ONNX)


def _evaluations(run_dir: Path, network: str) -> list[dict[str, Any]]:
    """What `wn-rl evaluate` wrote of one network of a run (by its name), and of the random policy.

    Of each protocol and epsilon, the row with the most episodes, of equals the newest. A line of
    evaluations.jsonl that was cut off is left out with a warning.
    """
    file = run_dir / "evaluations.jsonl"
    largest: dict[tuple[str, str, float], dict[str, Any]] = {}
    for number, line in enumerate(read_file(file, MAX_LINES).splitlines() if file.exists() else [], start=1):
        try:
            row = parse_json(line)
            require_form(row, _EVALUATION)
            key = (row["policy"], row["protocol"], row["epsilon"])
            size = len(row["returns"])
        except (ValueError, RecursionError):
            say(f"warning: line {number} of {file} is damaged and left out")
            continue
        if row["policy"] in (network, "random policy") and size >= len(largest.get(key, row)["returns"]):
            largest[key] = row
    return list(largest.values())


def _card(agent: Agent, evaluations: Sequence[dict[str, Any]], files: Sequence[str]) -> str:
    """The README.md, which people and the Hugging Face hub read."""
    layers = list(agent.network.named_children())[1:]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files(__package__) / "card.md.jinja").read_text())
    return template.render(
        agent=agent,
        config=agent.run.get("config"),
        settings=json.dumps(agent.run, indent=2),
        evaluations=evaluations,
        files=files,
        layers=layers if all(type(layer) in PLAIN_LAYERS for _, layer in layers) else [],
    )
