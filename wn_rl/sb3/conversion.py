"""A run of ours as an SB3 model, and an SB3 model's network as one of ours, with equal Q-values.

SB3 merges a stack of observations into their leading axis: our [B, K, *O] is SB3's [B, K * O0, ...].
"""

from pathlib import Path
from typing import Any

from stable_baselines3 import DQN
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from wn_rl.config import identity
from wn_rl.errors import UserError
from wn_rl.nn import make_network
from wn_rl.run.folder import open_run
from wn_rl.run.tensor_files import read_best_network
from wn_rl.sb3.policies import NetworkFeatures, WeightNormMlpPolicy

_FEATURES, _HEAD = "features_extractor.network.", "q_net.0."  # where SB3 keeps the layers
_OUTPUT = "output."  # the last layer of ours


def model_from_run(run: str | Path, env: Any, **settings: Any) -> DQN:
    """An SB3 DQN with the network of the run's best evaluation: the same parameters, statistics and Q-values.

    run: the run's folder. env: its game as SB3 sees it (`wn_rl.envs.as_gymnasium.GameEnv`), a VecEnv of it, or any
    environment with the same observations. settings: those of DQN (learning_rate, buffer_size, ...); their
    defaults are SB3's and not the run's.

    Raises:
        UserError: the folder is not a run, the run has no evaluation yet, or its network is damaged.
        RuntimeError: the observations or actions of env do not fit the network.
    """
    folder, _, config = open_run(run)
    if not folder.best_network.exists():
        raise UserError(f"{run} has no best network yet: it was not evaluated")
    tensors, step = read_best_network(folder.best_network, identity(config))
    policy: dict[str, Any] = {
        "parameterization": config.parameterization,
        "log_scale": config.network.log_scale,
        "net_arch": [],
        "features_extractor_class": NetworkFeatures,
        "features_extractor_kwargs": {"network": config.network.name, "channels": "first"},
    }
    model = DQN(WeightNormMlpPolicy, env, policy_kwargs=policy, **settings)
    state = {_to_sb3(name): tensor for name, tensor in tensors.items()}
    for network in (model.q_net, model.q_net_target):
        network.load_state_dict(state)
    model.num_timesteps = step
    model._n_updates = max(step - config.learning.replay_start, 0) // config.learning.update_period
    return model


def network_from_model(model: DQN, *, stack: int = 1) -> nn.Sequential:
    """The model's Q-network as one of ours, [B, stack, *frame_shape] -> [B, A], with parameters of its own.

    stack: the number of frames in which the leading axis of an observation is cut. Frames are [H, W], as on Atari,
    if one channel is left, else [C, H, W].

    Raises:
        ValueError: the network is not one of NETWORKS with only a Q head behind it (`wn_rl.nn.fold(model.q_net)`
            makes plain layers of any network), or stack does not divide the axis.
    """
    policy, extractor = model.policy, model.q_net.features_extractor
    if not isinstance(extractor, NetworkFeatures) or policy.net_arch:
        raise ValueError("only the networks of NETWORKS can be converted: see NetworkFeatures")
    network = make_network(
        extractor.network_name,
        frame_shape=_frame_shape(extractor.frame_shape, stack),
        stack=stack,
        scale=1 / 255 if model.policy.normalize_images and is_image_space(model.observation_space) else 1.0,
        num_actions=int(model.action_space.n),
        parameterization=policy.parameterization,
        log_scale=policy.log_scale,
    )
    network.load_state_dict({_to_ours(name): tensor for name, tensor in model.q_net.state_dict().items()})
    return network.to(model.device).train(model.q_net.training)


def _to_sb3(name: str) -> str:
    """conv1.weight.v -> features_extractor.network.conv1.weight.v, output.weight.v -> q_net.0.weight.v."""
    return _HEAD + name.removeprefix(_OUTPUT) if name.startswith(_OUTPUT) else _FEATURES + name


def _to_ours(name: str) -> str:
    return _OUTPUT + name.removeprefix(_HEAD) if name.startswith(_HEAD) else name.removeprefix(_FEATURES)


def _frame_shape(shape: tuple[int, ...], stack: int) -> tuple[int, ...]:
    if stack < 1 or shape[0] % stack:
        raise ValueError(f"observations {shape} are not a stack of {stack} frames")
    leading = shape[0] // stack
    is_flat_image = len(shape) == 3 and leading == 1 and stack > 1
    return shape[1:] if is_flat_image else (leading, *shape[1:])
