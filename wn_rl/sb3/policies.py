"""Policies for Stable-Baselines3 in which every dense and conv layer has one of our parameterizations.

SB3 builds its networks, ours or the user's, and they are reparameterized before the optimizer is made. They
start with the weights that SB3 gave them; `DataDependentInit` starts a DQN as the paper does.
"""

import warnings
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy, MultiInputPolicy, QNetwork
from torch import Tensor, nn

from wn_rl.envs.gymnasium_lanes import are_channels_last
from wn_rl.nn import PARAMETERIZATIONS, Dense, default_init, make_network, reparameterize

ADAMAX_BETAS = (0.5, 0.999)  # Salimans & Kingma 2016, section 5.4: Adamax with momentum 0.5


class NetworkFeatures(BaseFeaturesExtractor):  # type: ignore[misc]  # SB3 is not followed by mypy here
    """A network of NETWORKS without its last layer, which SB3's head replaces: [B, *O] -> [B, features].

    Images are [C, H, W] or [H, W, C], as channels says: first, last, or auto for a guess. SB3 divides them by 255
    if their space is uint8 from 0 to 255. The layers are plain until a policy of this module converts them.
    """

    def __init__(self, observation_space: spaces.Box, network: str = "nature_cnn", channels: str = "auto") -> None:
        shape = observation_space.shape
        last = len(shape) == 3 and (are_channels_last(shape) if channels == "auto" else channels == "last")
        self.frame_shape = (shape[2], *shape[:2]) if last else shape
        self._channels_last = last
        whole = make_network(
            network, frame_shape=self.frame_shape, stack=1, scale=1, num_actions=1, parameterization="normal"
        )
        default_init(whole)
        head = whole[-1]
        assert isinstance(head, Dense), f"the last layer of {network} is not a dense layer"
        super().__init__(observation_space, features_dim=head.weight.v.shape[1])
        self.network_name = network
        self.network = whole[:-1]

    def forward(self, observations: Tensor) -> Tensor:
        images = observations.permute(0, 3, 1, 2) if self._channels_last else observations
        features: Tensor = self.network(images.unsqueeze(1))  # a stack of one: SB3 has merged the frames
        return features


class _Layers:
    """Mixin of an SB3 policy. It keeps which parameterization the layers have.

    parameterization: a name in PARAMETERIZATIONS. log_scale: c of g = exp(c s), None for g itself.
    settings: those of the SB3 policy (net_arch, features_extractor_class, ...).
    """

    def __init__(
        self,
        *arguments: Any,
        parameterization: str = "weight_norm",
        log_scale: float | None = None,
        **settings: Any,
    ) -> None:
        if PARAMETERIZATIONS[parameterization].frees_output:  # such weights change after updates too
            usable = ", ".join(name for name in PARAMETERIZATIONS if not PARAMETERIZATIONS[name].frees_output)
            raise ValueError(f"{parameterization} needs updates of ours, not SB3's: choose from {usable}")
        self.parameterization = parameterization  # before SB3's constructor, which builds the networks
        self.log_scale = log_scale
        super().__init__(*arguments, **settings)

    def _convert(self, module: nn.Module) -> None:
        """Convert the module's layers in place; a warning names those that keep their plain weights."""
        _, left = reparameterize(module, self.parameterization, self.log_scale)
        if left:
            warnings.warn(f"{self.parameterization} does not reach {'; '.join(left)}", stacklevel=2)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        ours = {"parameterization": self.parameterization, "log_scale": self.log_scale}
        return {**super()._get_constructor_parameters(), **ours}  # type: ignore[misc]


class _QLayers(_Layers):
    """Mixin of an SB3 DQN policy: parameterized extractor and Q head, and the paper's Adamax."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings = {"optimizer_class": torch.optim.Adamax, **settings}
        if settings["optimizer_class"] is torch.optim.Adamax:
            settings["optimizer_kwargs"] = {"betas": ADAMAX_BETAS, **(settings.get("optimizer_kwargs") or {})}
        super().__init__(*arguments, **settings)

    def make_q_net(self) -> QNetwork:
        """SB3's Q-network with our layers, for the online and for the target network."""
        q_net = super().make_q_net()  # type: ignore[misc]
        self._convert(q_net)
        return q_net


class WeightNormMlpPolicy(_QLayers, DQNPolicy):  # type: ignore[misc]
    """DQN on vectors, or with an extractor of the user's: like SB3's MlpPolicy, net_arch [64, 64] by default."""


class WeightNormMultiInputPolicy(_QLayers, MultiInputPolicy):  # type: ignore[misc]
    """DQN on dictionaries of observations, like SB3's MultiInputPolicy."""


class WeightNormCnnPolicy(_QLayers, DQNPolicy):  # type: ignore[misc]
    """DQN on images: the network of Mnih et al. 2015, with the Q head as its last layer.

    policy_kwargs={"features_extractor_kwargs": {"network": "minatar_cnn"}} takes another network of NETWORKS.
    The Q head alone follows an extractor of the user's too, unless net_arch says otherwise.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings = {"features_extractor_class": NetworkFeatures, **settings}
        settings["net_arch"] = settings.get("net_arch") or []
        super().__init__(*arguments, **settings)


class _ActorCriticLayers(_Layers):
    """Mixin of an SB3 actor-critic policy (PPO, A2C): parameterized extractor, actor and critic.

    The function is the one SB3 starts with (orthogonal weights), and SB3's optimizer stays. Prefer the
    parameterizations without batch statistics: PPO compares an action's probability in training mode with the one
    in eval mode.
    """

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        assert isinstance(self, ActorCriticPolicy)
        self._convert(self)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class WeightNormActorCriticPolicy(_ActorCriticLayers, ActorCriticPolicy):  # type: ignore[misc]
    """PPO or A2C on vectors, like SB3's MlpPolicy."""


class WeightNormActorCriticCnnPolicy(_ActorCriticLayers, ActorCriticCnnPolicy):  # type: ignore[misc]
    """PPO or A2C on images, like SB3's CnnPolicy."""
