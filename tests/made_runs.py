"""Folders of runs, as far as their best network goes, made without training."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from wn_rl.agents.experiment import make_online_network
from wn_rl.config import Config, identity, to_json
from wn_rl.envs import make
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.nn import data_dependent_init
from wn_rl.run.folder import RunFolder, write_json
from wn_rl.run.tensor_files import write_network_file

STEP = 20_000  # of the best network


def spec_of(config: Config) -> EnvironmentSpec:
    """What the config's game offers."""
    return make(config.suite, config.game, config.environment, num_envs=1, seed=0).spec


def states_of(config: Config, count: int = 32) -> Tensor:
    """Random observations [count, K, *O] in the environment's dtype."""
    spec, generator = spec_of(config), torch.Generator().manual_seed(0)
    shape = (count, config.network.stack, *spec.frame_shape)
    if spec.dtype == "float32":
        return torch.randn(shape, generator=generator)
    return torch.randint(0, round(1 / spec.scale) + 1, shape, dtype=torch.uint8, generator=generator)


def make_run(folder: Path, config: Config) -> nn.Module:
    """Write what a run leaves of its best test; returns its network, in eval mode."""
    network = make_online_network(config, spec_of(config))
    data_dependent_init(network, states_of(config))
    write_json(RunFolder(folder).config_file, {"config": to_json(config)})
    metadata = {"step": str(STEP), "identity": json.dumps(identity(config), sort_keys=True)}
    write_network_file(RunFolder(folder).best_network, network.state_dict(), metadata)
    return network.eval()
