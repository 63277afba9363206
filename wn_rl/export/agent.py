"""A trained network with what is needed to play with it, in two files: config.json and model.safetensors.

The files may come from a stranger: their values are checked, and reading them runs and imports no code.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wn_rl.errors import UserError, refusing
from wn_rl.export.hub import download
from wn_rl.nn import Preprocess, fold, make_network
from wn_rl.run.files import parse_json, read_file, require_form, sha256
from wn_rl.run.folder import write_json
from wn_rl.run.loading import network_with
from wn_rl.run.tensor_files import read_network_file, write_network_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = {"format": "wn_rl.agent", "version": 2}
_FORM = {
    **{"name": str, "architecture": str, "frame_shape": [int], "stack": int, "scale": float},
    **{"dtype": str, "actions": [str], "run": dict},
}
_LONGEST_TEXT = 200  # characters of a name


@dataclass(frozen=True)
class Agent:
    """A network and what it plays.

    network: plain layers (`wn_rl.nn.fold`) behind a Preprocess, in eval mode: [B, K, *O] -> [B, A].
    architecture: the network's name in NETWORKS.
    dtype: of observations as the environment gives them, "uint8" or "float32".
    actions: the meaning of each.
    name: which network of its training it is, e.g. "best network, step 75,000".
    run: its run's config.json without "command"; empty for a network that no run of ours made.
    """

    network: nn.Sequential
    architecture: str
    dtype: str
    actions: tuple[str, ...]
    name: str
    run: dict[str, Any]

    @property
    def preprocess(self) -> Preprocess:
        """The network's first module, which knows the shape of observations and their scale."""
        return cast(Preprocess, self.network[0])

    def check(self, q_values: Callable[[Tensor], Tensor], source: str) -> None:
        """UserError unless a function gives the Q-values of the network, to 1e-5, for batches of any size."""
        network = copy.deepcopy(self.network).cpu().float()
        for count in (1, 8):
            shape = (count, *self.preprocess.stacked_shape)
            states = torch.randn(shape, generator=torch.Generator().manual_seed(count))
            if self.dtype == "uint8":  # numbers that an environment could give
                states = (states.sigmoid() / self.preprocess.scale).round().byte()
            with torch.no_grad():
                if not torch.allclose(q_values(states), network(states), atol=1e-5, rtol=1e-5):
                    raise UserError(f"the agent was not exported: the values of {source} differ from its own")


def write_agent(agent: Agent, folder: Path) -> None:
    """Write config.json and model.safetensors into the folder.

    Raises:
        UserError: the network is not the one that NETWORKS has under the name of its architecture.
    """
    stack, *frame_shape = agent.preprocess.stacked_shape
    record = {
        "name": agent.name,
        "architecture": agent.architecture,
        "frame_shape": frame_shape,
        "stack": stack,
        "scale": float(agent.preprocess.scale),
        "dtype": agent.dtype,
        "actions": agent.actions,
        "run": agent.run,
    }
    tensors = {name: tensor.cpu().float() for name, tensor in agent.network.state_dict().items()}
    agent.check(_build(record, tensors), f"the network {agent.architecture}")
    write_json(folder / CONFIG, {**_FORMAT, **record})
    digest = sha256((folder / CONFIG).read_bytes())
    write_network_file(folder / WEIGHTS, tensors, {"format": "pt", CONFIG: digest})


def read_agent(folder: Path, *, is_cache: bool = False) -> Agent:
    """The agent that `write_agent` wrote. is_cache: the hub's package made the folder, of links to its files.

    Raises:
        UserError: a file is missing, damaged, changed or of another version.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():  # the reader of a pipe would wait forever
            raise UserError(f"there is no exported agent in {folder}: it has no file {name}")
    config, weights = ((folder / name).resolve() if is_cache else folder / name for name in (CONFIG, WEIGHTS))
    tensors, metadata = read_network_file(weights)
    with refusing(f"{folder / CONFIG} is not valid"):
        data = read_file(config)
        record = _checked(parse_json(data))
        if metadata.get(CONFIG) != sha256(data):
            raise ValueError("it was changed after the export")
        network = _build(record, tensors)
    return Agent(
        network, record["architecture"], record["dtype"], tuple(record["actions"]), record["name"], record["run"]
    )


def _checked(record: Any) -> dict[str, Any]:
    """A config.json whose values have the types that they must have. ValueError otherwise."""
    if not isinstance(record, dict) or {**record, **_FORMAT} != record:
        raise ValueError("it is not that of an agent which this version of wn-rl exports")
    require_form(record, _FORM)
    if record["dtype"] not in ("uint8", "float32"):
        raise ValueError("dtype must be uint8 or float32")
    texts = (record["name"], *record["actions"])  # these are printed, and a terminal acts on other characters
    if not all(text.isprintable() and len(text) <= _LONGEST_TEXT for text in texts):
        raise ValueError(f"name and actions must be printable texts of at most {_LONGEST_TEXT} characters")
    return record


def _build(record: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Sequential:
    """The network that a record describes, with these weights.

    Raises:
        UserError: there is no such architecture, or it does not have such weights.
    """
    frame_shape, stack, scale = tuple(record["frame_shape"]), record["stack"], record["scale"]
    sizes = {"frame_shape": frame_shape, "stack": stack, "num_actions": len(record["actions"])}

    def make() -> nn.Module:
        return fold(make_network(record["architecture"], **sizes, scale=scale, parameterization="normal"))

    plain = cast(nn.Sequential, network_with(make, tensors))
    plain[0] = Preprocess(frame_shape, stack, scale)
    return plain


def load_exported(path_or_id: str | Path, *, revision: str | None = None) -> Agent:
    """An exported agent from its folder, or from the Hugging Face hub ("owner/name", at a revision).

    Only config.json and model.safetensors are read or downloaded; no code of theirs is run.

    Raises:
        UserError: there is neither such a folder nor such a repository, or its files are damaged.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        return read_agent(folder)
    return read_agent(download(str(path_or_id), [CONFIG, WEIGHTS], revision), is_cache=True)
