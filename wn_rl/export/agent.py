"""A trained network with what is needed to play with it, in two files: config.json and model.safetensors."""

import copy
import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wn_rl.errors import UserError
from wn_rl.export.hub import download
from wn_rl.export.layers import build, describe
from wn_rl.nn import Preprocess
from wn_rl.run.folder import write_json
from wn_rl.run.tensor_files import read_network_file, write_network_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = {"format": "wn_rl.agent", "version": 1}
DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Agent:
    """A network and what it plays.

    network: plain layers (`wn_rl.nn.fold`) behind a Preprocess, in eval mode: [B, K, *O] -> [B, A].
    dtype: of observations as the environment gives them, "uint8" or "float32".
    actions: the meaning of each.
    name: which network of its training it is, e.g. "best network, step 75,000".
    run: its run's config.json but for "command"; empty for a network that no run of ours made.
    """

    network: nn.Sequential
    dtype: str
    actions: tuple[str, ...]
    name: str
    run: dict[str, Any]

    @property
    def preprocess(self) -> Preprocess:
        """The network's first module, which knows the shape of observations and their scale."""
        first = self.network[0]
        if not isinstance(first, Preprocess):
            raise UserError(f"the network begins with a {type(first).__name__}, not with a Preprocess")
        return first

    def random_observations(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, K, *O]: numbers that an environment could give, for comparing networks."""
        shape = (count, *self.preprocess.stacked_shape)
        if self.dtype == "float32":
            return torch.randn(shape, generator=generator)
        return torch.randint(round(1 / self.preprocess.scale) + 1, shape, generator=generator, dtype=torch.uint8)


def write_agent(agent: Agent, folder: Path) -> None:
    """Write config.json and model.safetensors into the folder.

    Raises:
        UserError: the network has a layer that cannot be described, or one with a setting that is not kept.
    """
    preprocess = agent.preprocess
    tensors = {name: tensor.float() for name, tensor in agent.network.state_dict().items()}
    record = {
        **FORMAT,
        "name": agent.name,
        "observation": {
            "shape": preprocess.stacked_shape,
            "dtype": agent.dtype,
            "scale": preprocess.scale,
            "merged_shape": preprocess.output_shape,
        },
        "actions": agent.actions,
        "layers": describe(list(agent.network.named_children())[1:]),
        "run": agent.run,
    }
    write_network_file(folder / WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / CONFIG, record)
    states = agent.random_observations(4, torch.Generator().manual_seed(0))
    given = copy.deepcopy(agent.network).cpu().float()
    with torch.no_grad():
        written, expected = read_agent(folder).network(states), given(states)
    if not torch.allclose(written, expected, atol=1e-5, rtol=1e-5):
        raise UserError("the network has a setting that its description does not keep: it cannot be exported")


def read_agent(folder: Path) -> Agent:
    """The agent that `write_agent` wrote. No code of the folder is run.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    record = _read_record(folder / CONFIG)
    tensors, _ = read_network_file(folder / WEIGHTS)
    try:
        observation = record["observation"]
        stack, *frame_shape = (int(size) for size in observation["shape"])
        dtype, scale = str(observation["dtype"]), float(observation["scale"])
        actions = tuple(str(action) for action in record["actions"])
        name, run, layers = str(record["name"]), dict(record["run"]), list(record["layers"])
        if dtype not in DTYPES:
            raise ValueError(f"observations cannot be {dtype}")
        if not all(tensor.dtype == torch.float32 for tensor in tensors.values()):
            raise ValueError("its weights are not float32")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {error!r}") from None
    preprocess = Preprocess(tuple(frame_shape), stack, scale)
    modules: OrderedDict[str, nn.Module] = OrderedDict(preprocess=preprocess, **build(layers))
    network = nn.Sequential(modules)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise UserError(f"{folder / WEIGHTS} does not fit {CONFIG}: {' '.join(str(error).split())}") from None
    return Agent(network.eval(), dtype, actions, name, run)


def is_exported(record: dict[str, Any]) -> bool:
    """Whether a config.json is that of an exported agent; else it may be that of a run."""
    return record.get("format") == FORMAT["format"]


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"there is no exported agent in {path.parent}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(record, dict) or not is_exported(record):
        raise UserError(f"{path} is not that of an exported agent")
    if record.get("version") != FORMAT["version"]:
        raise UserError(f"{path} is of version {record.get('version')}, this wn-rl reads {FORMAT['version']}")
    return record


def load_exported(path_or_id: str | Path, *, revision: str | None = None) -> Agent:
    """An exported agent from its folder, or from the Hugging Face hub ("owner/name", at a revision).

    Only config.json and model.safetensors are read or downloaded; no code of theirs is run.

    Raises:
        UserError: there is neither such a folder nor such a repository, or its files are damaged.
    """
    folder = Path(path_or_id)
    return read_agent(folder if folder.is_dir() else download(str(path_or_id), [CONFIG, WEIGHTS], revision))
