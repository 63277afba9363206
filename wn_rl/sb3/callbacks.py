"""The data-dependent initialization (Salimans & Kingma 2016, section 3) inside SB3's training loop."""

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from wn_rl.nn import data_dependent_init
from wn_rl.nn.layers import INITIAL_STD, layers_of


class _AtStates(nn.Module):
    """A network at fixed states: `data_dependent_init` passes one tensor, and SB3's states may be a dictionary."""

    def __init__(self, network: nn.Module, states: Tensor | dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self.states = network, states

    def forward(self, _: Tensor) -> Tensor:
        q: Tensor = self.network(self.states)
        return q


@torch.no_grad()
def initialize(model: DQN, num_states: int) -> None:
    """Draw v ~ N(0, .05), set g and b on states from the replay (eq. 4-5), and copy everything to the target."""
    states = model.replay_buffer.sample(num_states, env=model.get_vec_normalize_env()).observations
    for layer in layers_of(model.q_net):
        layer.weight.v.normal_(0, INITIAL_STD)
    data_dependent_init(_AtStates(model.q_net, states), torch.empty(num_states))
    model.q_net_target.load_state_dict(model.q_net.state_dict())


class DataDependentInit(BaseCallback):  # type: ignore[misc]  # SB3 is not followed by mypy here
    """Initializes a DQN from its replay just before its first update, in place.

    A model that has learned before (loaded, converted or trained) is left as it is, so the callback may stay in a
    script that resumes a saved model. num_states: states of the batch, at least 2 (the paper does not state the
    number for DQN; its CIFAR code uses 500).
    """

    model: DQN

    def __init__(self, num_states: int = 512) -> None:
        super().__init__()
        if num_states < 2:
            raise ValueError(f"num_states must be at least 2, not {num_states}")
        self.num_states = num_states

    def _init_callback(self) -> None:
        if not isinstance(self.model, DQN):
            raise TypeError(f"DataDependentInit is for SB3's DQN, not {type(self.model).__name__}")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        # The optimizer of a model whose parameters were set from a file has a state, but it counts no updates.
        has_learned = model._n_updates > 0 or bool(model.policy.optimizer.state)
        if model.num_timesteps > model.learning_starts and not has_learned:
            initialize(model, self.num_states)
