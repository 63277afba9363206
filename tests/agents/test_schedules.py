"""What follows the updates: averages of weights, more updates a period, and a learning rate that falls."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from wn_rl.agents.dqn import DQN
from wn_rl.agents.experiment import make_dqn, restore, state_of
from wn_rl.config import Config, LearningConfig, NetworkConfig, identity
from wn_rl.nn import OPTIMIZERS, fold, make_optimizer
from wn_rl.presets import classic

LEARNING = LearningConfig(batch_size=8, replay_capacity=2_000, replay_start=40, target_period=80)
UPDATES = 40  # that belong to the 160 steps after replay start; the next step makes the last of them


def config_of(parameterization: str = "weight_norm", **changes: Any) -> Config:
    """A short run of cartpole. changes: of its parts, e.g. learning={"target_smoothing": 0.1}."""
    network = NetworkConfig("mlp", 1, init_states=16)
    base = dataclasses.replace(classic("cartpole"), steps=200, num_envs=2, learning=LEARNING, network=network)
    for name, values in {"evaluation": {}, **changes}.items():
        extra = {"held_out_states": 16} if name == "evaluation" else {}
        part = dataclasses.replace(getattr(base, name), **values, **extra)
        base = dataclasses.replace(base, **{name: part})
    return dataclasses.replace(base, parameterization=parameterization)


def trained(config: Config) -> tuple[DQN, list[dict[str, Tensor]]]:
    """The run at its end, and the online network's state at replay start and after every update."""
    dqn = make_dqn(config, torch.device("cpu"))
    states: list[dict[str, Tensor]] = []

    def note(dqn: DQN) -> None:
        online = dqn.learner.networks.online
        if dqn.initialized and len(states) <= dqn.learner.num_updates:
            states.append({name: value.clone() for name, value in online.state_dict().items()})

    dqn.run(config.steps, note)
    assert len(states) == dqn.learner.num_updates + 1
    return dqn, states


def moving_average(states: list[dict[str, Tensor]], share: float) -> dict[str, Tensor]:
    """The naive one, in float64."""
    average = {name: value.double() for name, value in states[0].items()}
    for state in states[1:]:
        average = {name: (1 - share) * value + share * state[name] for name, value in average.items()}
    return {name: value.float() for name, value in average.items()}


@pytest.mark.parametrize("parameterization", ["normal", "weight_norm", "batch_norm"])
def test_evaluations_ask_the_average_of_the_parameters(parameterization: str) -> None:
    dqn, states = trained(config_of(parameterization, evaluation={"averaging": 0.9}))
    networks = dqn.learner.networks
    expected = moving_average(states, 0.1)
    torch.testing.assert_close(networks.evaluated_state(), expected)
    networks.online.load_state_dict(expected)
    torch.testing.assert_close(networks.evaluation_network().state_dict(), fold(networks.online).state_dict())


@pytest.mark.parametrize("parameterization", ["normal", "weight_norm", "batch_norm"])
def test_a_smoothed_target_follows_the_plain_weights(parameterization: str) -> None:
    dqn, states = trained(config_of(parameterization, learning={"target_smoothing": 0.1}))
    networks, plain = dqn.learner.networks, []
    for state in states:
        networks.online.load_state_dict(state)
        plain.append(fold(networks.online).state_dict())
    torch.testing.assert_close(dict(networks.target.state_dict()), moving_average(plain, 0.1))


@pytest.mark.parametrize("num_envs", [1, 2, 8])
def test_a_period_may_have_several_updates(num_envs: int) -> None:
    """For any number of lanes; the target is copied at the same steps as with one update."""
    config = dataclasses.replace(config_of(learning={"updates_per_period": 3}), num_envs=num_envs)
    dqn = make_dqn(config, torch.device("cpu"))
    copies: list[int] = []
    copy_target = dqn.learner.networks.copy_target
    dqn.learner.networks.copy_target = lambda: (copies.append(dqn.learner.num_updates), copy_target())  # type: ignore[method-assign,assignment,func-returns-value]
    dqn.run(config.steps + num_envs, lambda dqn: None)
    assert dqn.learner.num_updates == 3 * UPDATES
    assert copies == [0, 60, 120]  # every 80 steps


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses its own old parts
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accelerate", ["eager", pytest.param("compile", marks=pytest.mark.slow)])
def test_the_learning_rate_falls_to_zero(optimizer: str, accelerate: str) -> None:
    """Against an optimizer whose rate is set before every step."""
    changes = {"name": optimizer, "learning_rate": 1e-2, "anneal": True}
    config = dataclasses.replace(config_of(optimizer=changes), accelerate=accelerate)
    dqn = make_dqn(config, torch.device("cpu"))
    networks, gradients, start = dqn.learner.networks, list[list[Tensor]](), list[Tensor]()
    apply = networks.step.apply

    def note(given: Any) -> None:
        if not start:
            start.extend(parameter.detach().clone() for parameter in networks.online.parameters())
        gradients.append([gradient.clone() for gradient in given])
        apply(given)

    networks.step.apply = note  # type: ignore[method-assign]
    dqn.run(config.steps + 2, lambda dqn: None)
    assert float(networks.optimizer.param_groups[0]["lr"]) == pytest.approx(0, abs=1e-12)
    if accelerate == "eager":  # else gradients are those of held weights
        parameters = [torch.nn.Parameter(value) for value in start]
        naive = make_optimizer(optimizer, parameters, 1e-2)
        for number, given in enumerate(gradients):
            naive.param_groups[0]["lr"] = 1e-2 * (1 - number / UPDATES)
            naive.apply(given)
        assert len(gradients) == UPDATES
        torch.testing.assert_close([*networks.online.parameters()], parameters)


def test_a_run_with_all_of_it_goes_on_as_if_nothing_had_happened() -> None:
    config = config_of(
        "batch_norm",
        learning={"target_smoothing": 0.1, "updates_per_period": 2},
        evaluation={"averaging": 0.9},
        optimizer={"anneal": True, "learning_rate": 1e-3},
    )
    half, again = make_dqn(config, torch.device("cpu")), make_dqn(config, torch.device("cpu"))
    half.run(120, lambda dqn: None)
    start, stop = half.replay.oldest_row, half.replay.num_rows
    again.replay.write_rows(start, half.replay.read_rows(start, stop))
    restore(again, state_of(half))
    for dqn in (half, again):
        dqn.run(config.steps, lambda dqn: None)
    one, other = (state_of(dqn)["learner"] for dqn in (half, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert "steps" in identity(config), "its learning rate ends with it"
    assert "steps" not in identity(config_of())
