"""From a Config to Deep Q-learning with all its parts; its rows of metrics, and its whole state."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from wn_rl import envs
from wn_rl.agents.actor import Actor
from wn_rl.agents.dqn import DQN, Learner, Targets, epsilon_at, q_learning, updates_due
from wn_rl.agents.q_networks import QNetworks
from wn_rl.agents.replay import Batches, Replay
from wn_rl.config import Config
from wn_rl.envs.base import Environments, EnvironmentSpec, Step
from wn_rl.machine import keep_freed_memory, require_compiler, require_memory
from wn_rl.nn import (
    data_dependent_init,
    default_init,
    make_network,
    make_optimizer,
    norms,
    relative_steps,
    standardize_outputs,
)
from wn_rl.seeding import derive_seed


def make_dqn(config: Config, device: torch.device, targets: Targets = q_learning) -> DQN:
    """Everything that `DQN.run` needs, built before the first step.

    Raises:
        UserError: the memory does not suffice, or there is no compiler.
        ValueError: an option needs another device.
    """
    require_device(config, device)
    keep_freed_memory()
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)  # streams and graphs are those of the current device
    environments = make_training_environments(config)
    spec = environments.spec
    networks = make_q_networks(config, spec, device)
    replay = make_replay(config, spec, device)
    seed, mode = derive_seed(config.seed, "actor"), config.accelerate
    stack = config.network.stack
    actor = Actor(networks.acting, config.num_envs, spec, stack=stack, seed=seed, accelerate=mode)
    seed = derive_seed(config.seed, "replay")
    learner = Learner(networks, replay, config.learning, seed=seed, accelerate=mode, targets=targets)
    return DQN(config.learning, environments, actor, replay, learner, lambda dqn: initialize(dqn, config))


def require_device(config: Config, device: torch.device) -> None:
    """ValueError if an option needs CUDA and the device is another, UserError if there is no compiler."""
    for option in (f"--accelerate {config.accelerate}", f"--learning.precision {config.learning.precision}"):
        if option.endswith(("cuda_graph", "tf32")) and device.type != "cuda":
            raise ValueError(f"{option} needs a CUDA device, not {device}")
    if config.accelerate != "eager":
        require_compiler(f"--accelerate {config.accelerate}", device.type)


def make_training_environments(config: Config) -> Environments:
    """The lanes that a run learns from."""
    seed = derive_seed(config.seed, "environments")
    return envs.make(config.suite, config.game, config.environment, num_envs=config.num_envs, seed=seed)


def make_online_network(config: Config, spec: EnvironmentSpec) -> nn.Sequential:
    """The network that a config asks for; its first weights are a function of the seed."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network = make_network(
        config.network.name,
        frame_shape=spec.frame_shape,
        stack=config.network.stack,
        scale=spec.scale,
        num_actions=spec.num_actions,
        parameterization=config.parameterization,
        log_scale=config.network.log_scale,
        overrides=config.network.override,
        generator=generator,
    )
    if config.initialization == "torch":
        default_init(network, generator)
    return network


def make_q_networks(config: Config, spec: EnvironmentSpec, device: torch.device) -> QNetworks:
    """The networks of a config on a device, and the optimizer that trains them."""
    online = make_online_network(config, spec).to(device)
    anneals = config.optimizer.anneal
    return QNetworks(
        online,
        make_optimizer(config.optimizer.name, online.parameters(), config.learning_rate),
        precision=config.learning.precision,
        accelerate=config.accelerate,
        max_v_norm=config.network.max_v_norm,
        target_smoothing=config.learning.target_smoothing,
        averaging=config.evaluation.averaging,
        anneal_over=max(1, updates_due(config.steps, config.learning)) if anneals else None,
    )


def make_replay(config: Config, spec: EnvironmentSpec, device: torch.device) -> Replay:
    """An empty replay: on the learner's device if it fits there with a tenth to spare, else in host memory.

    Raises:
        UserError: it fits nowhere.
    """
    capacity = config.learning.replay_capacity
    num_bytes = Replay.num_bytes(capacity, spec)
    if device.type != "cuda" or num_bytes >= 0.9 * torch.cuda.mem_get_info(device)[0]:
        require_memory(num_bytes, "the replay (--learning.replay-capacity)")
        device = torch.device("cpu")
    return Replay(capacity, config.num_envs, spec, stack=config.network.stack, device=device)


def initialize(dqn: DQN, config: Config) -> None:
    """At replay start, once in a run: what of the initialization needs states, and the held-out states."""
    networks, seed = dqn.learner.networks, derive_seed(config.seed, "replay")

    def states(purpose: str, count: int) -> Tensor:  # [count, K, *O], on the networks' device
        batches = Batches(dqn.replay, purpose, count, networks.device, seed)
        batches.seek(0, 1)
        return batches.take(1).s_tm1.contiguous()

    dqn.replay.require_transitions()

    def start(online: nn.Sequential) -> None:
        scale = config.network.output_scale
        if config.initialization == "data_dependent":
            data_dependent_init(
                online, states("initialize", config.network.init_states), 1 if scale is None else scale
            )
        elif scale is not None:
            standardize_outputs(online, states("initialize", config.network.init_states), scale)

    networks.initialize(start)
    dqn.held_out_states = states("held_out", config.evaluation.held_out_states)


def take_metrics(dqn: DQN) -> dict[str, float | int | None]:
    """One row: what happened since the last call. Returns are raw; |v| and |g| of each layer are means over units.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    check_finite(dqn)
    networks = dqn.learner.networks
    return {
        "step": dqn.num_steps,
        "frames": dqn.num_frames,
        "updates": dqn.learner.num_updates,
        **dqn.episodes.take_metrics(),
        "epsilon": epsilon_at(dqn.num_steps, dqn.learning),
        **networks.sums.take(),
        **{name: float(value) for name, value in norms(networks.online).items()},
        **{name: float(value) for name, value in relative_steps(networks.online, networks.optimizer).items()},
    }


def check_finite(dqn: DQN) -> None:
    """FloatingPointError, with what to look at, if the loss or a parameter is not finite."""
    networks, losses = dqn.learner.networks, float(dqn.learner.networks.sums.loss)
    named = networks.online.named_parameters()
    bad = [name for name, value in named if not bool(torch.isfinite(value).all())]
    if bad or not math.isfinite(losses):
        raise FloatingPointError(
            f"at update {dqn.learner.num_updates} the losses since the last row add up to {losses}, "
            f"and the parameters that are not finite are: {', '.join(bad) or 'none'}. "
            f"The learning rate is {float(networks.optimizer.param_groups[0]['lr']):g}: try a smaller one"
        )


def state_of(dqn: DQN) -> dict[str, Any]:
    """Everything that decides the future but the replay's rows, which are saved apart."""
    assert dqn.step is not None
    return {
        "num_steps": dqn.num_steps,
        "initialized": dqn.initialized,
        "held_out_states": dqn.held_out_states,
        "step": dqn.step._asdict(),
        "environments": dqn.environments.state_dict(),
        "learner": {**dqn.learner.networks.state_dict(), "num_updates": dqn.learner.num_updates},
        "actor": dqn.actor.state_dict(),
        **dqn.episodes.state_dict(),
    }


def restore(dqn: DQN, state: dict[str, Any]) -> list[int]:
    """Continue from a state that `state_of` gave; the replay's rows must have been put back.

    Returns the lanes whose episode is lost: they start the next one, and the lost one counts nowhere.
    """
    dqn.num_steps = state["num_steps"]
    dqn.initialized = state["initialized"]
    if state["held_out_states"] is not None:
        dqn.held_out_states = state["held_out_states"].to(dqn.learner.networks.device)
    dqn.step = Step(**state["step"])
    lost = dqn.environments.load_state_dict(state["environments"])
    dqn.learner.networks.load_state_dict(state["learner"])
    dqn.learner.num_updates = state["learner"]["num_updates"]
    dqn.actor.load_state_dict(state["actor"])
    dqn.episodes.load_state_dict(state)
    dqn.episodes.running.forget(lost)
    return lost
