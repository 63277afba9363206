"""The data-dependent initialization (Salimans & Kingma 2016, section 3) inside SB3's training loop."""

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from wn_rl.nn import Layer, data_dependent_init
from wn_rl.nn.layers import INITIAL_STD

States = Tensor | dict[str, Tensor]


class _OfStates(nn.Module):
    """A network as a function of the numbers [B] of states, whatever an observation is made of."""

    def __init__(self, network: nn.Module, states: States) -> None:
        super().__init__()
        self.network = network
        self.states = states

    def forward(self, numbers: Tensor) -> Tensor:
        if isinstance(self.states, dict):
            q: Tensor = self.network({name: part[numbers] for name, part in self.states.items()})
        else:
            q = self.network(self.states[numbers])
        return q


@torch.no_grad()
def initialize(model: DQN, num_states: int) -> None:
    """Draw v ~ N(0, .05), set g and b on states from the replay (eq. 4-5), and copy all to the target."""
    states: States = model.replay_buffer.sample(num_states, env=model.get_vec_normalize_env()).observations
    for module in model.q_net.modules():
        if isinstance(module, Layer):
            module.weight.v.normal_(0, INITIAL_STD)
    data_dependent_init(_OfStates(model.q_net, states), torch.arange(num_states, device=model.device))
    model.q_net_target.load_state_dict(model.q_net.state_dict())


class DataDependentInit(BaseCallback):  # type: ignore[misc]  # SB3 is not followed by mypy here
    """Initializes a DQN from its replay just before its first update, in place.

    A model that has learned (loaded, converted or trained before) is left as it is, so that the callback may
    stay in a script that goes on with a saved model. num_states: states of the batch, at least 2 (the
    paper does not state it for DQN; its CIFAR code uses 500).
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
        if self.model.num_timesteps > self.model.learning_starts and not _has_learned(self.model):
            initialize(self.model, self.num_states)


def _has_learned(model: DQN) -> bool:
    """Whether updates made the weights: the model's own, or those that its parameters were set from."""
    return model._n_updates > 0 or bool(model.policy.optimizer.state)
