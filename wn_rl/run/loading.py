"""The network that a run made, read from its folder."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wn_rl.agents.accelerate import set_tf32
from wn_rl.agents.evaluation import make_evaluation_environments
from wn_rl.agents.experiment import make_online_network
from wn_rl.config import Config
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.errors import UserError, refusing, say
from wn_rl.machine import resolve_device
from wn_rl.nn import fold
from wn_rl.run.checkpoint import CheckpointError, CheckpointStore
from wn_rl.run.folder import RunFolder, open_run
from wn_rl.run.tensor_files import read_best_network, run_identity


def evaluation_spec(config: Config) -> EnvironmentSpec:
    """What the game of a config gives and takes."""
    environments = make_evaluation_environments(config, num_envs=1, seed=0)
    environments.close()
    return environments.spec


def network_with(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """What make gives, with these parameters and buffers; no memory is taken for sizes that a file claims.

    Raises:
        UserError: it cannot be made, or its parameters and buffers are others.
    """
    with refusing("the network could not be built"):
        with torch.device("meta"):
            network = make()
        own = network.state_dict()
        if any(name in own and own[name].dtype != tensor.dtype for name, tensor in tensors.items()):
            raise ValueError("the weights have other types of numbers")
        network.load_state_dict(tensors, assign=True)
        return network


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run's config and network, for use outside of training.

    network: plain torch layers in eval mode: [B, K, *O] as the environment gives them -> [B, A].
    name: which network it is, e.g. "best network, step 75,000".
    spec: what the environment gives and takes.
    """

    config: Config
    network: nn.Sequential
    name: str
    spec: EnvironmentSpec


def load_run(
    run_dir: str | Path, which: str = "best", device: str = "cpu", *, open_game: bool = True
) -> LoadedRun:
    """The config of the run in a folder, and its network with plain layers.

    which: "best", that of the maximum evaluation score, or "latest", that of the newest checkpoint. Before the
    first evaluation there is no best one yet, and the newest checkpoint is taken. open_game: whether the game says
    its shapes; if not, config.json does if it can, and the game need not be installed.

    Raises:
        UserError: there is no run, no network of it yet, or its files are damaged or of another run.
    """
    if which not in ("best", "latest"):
        raise UserError(f"unknown network {which!r} of a run: choose best or latest")
    folder, record, config = open_run(run_dir)
    place = resolve_device(device)
    set_tf32(config.learning.precision == "tf32", place)
    opens = open_game or "spec" not in record
    spec = evaluation_spec(config) if opens else _recorded_spec(folder, record["spec"])
    wanted = run_identity(config, spec)
    if which == "best" and folder.best_network.exists():
        tensors, step = read_best_network(folder.best_network, wanted)
    elif loaded := CheckpointStore(folder.checkpoints, wanted).load_state(say):
        with refusing(f"the checkpoint of {folder.shown} cannot be used"):
            if which == "best" and loaded[1]["monitor"]["best_score"] is not None:
                raise ValueError(
                    f"{folder.best_network.name} is missing; --network latest takes the newest network"
                )
            which, step, learner = "latest", loaded[0], loaded[1]["experiment"]["learner"]
            tensors = learner.get("average", learner["online"])
    else:
        raise CheckpointError(f"{folder.shown} has no checkpoint yet")
    network_with(lambda: make_online_network(config, spec), tensors)
    online = make_online_network(config, spec)
    online.load_state_dict(tensors)
    network = cast(nn.Sequential, fold(online).to(place))
    return LoadedRun(config, network, f"{which} network, step {step:,}", spec)


def _recorded_spec(folder: RunFolder, values: Any) -> EnvironmentSpec:
    """What config.json says of the game. UserError: it is damaged."""
    try:
        lists = {name: tuple(values[name]) for name in ("frame_shape", "action_meanings")}
        return EnvironmentSpec(**{**values, **lists})
    except (TypeError, KeyError):
        raise UserError(f"{folder.config_file} does not say the shapes of its game") from None
