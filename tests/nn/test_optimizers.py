"""Optimizers: two steps by hand, a naive float64 model, state round trips."""

import copy
import math

import numpy as np
import pytest
import torch
from nn_tools import seeded
from numpy.typing import NDArray
from torch import nn

from wn_rl.nn import (
    OPTIMIZERS,
    AuthorsAdamax,
    CenteredRMSProp,
    Layers,
    load_optimizer_tree,
    make_optimizer,
    optimizer_tree,
    relative_steps,
)
from wn_rl.nn.update import optimizers as module
from wn_rl.nn.update.optimizers import MultiTensorOptimizer

Array = NDArray[np.float64]
GRADIENTS = [np.array(g) for g in ([1.0, -2.0], [0.5, 0.0], [-3.0, 1e-3], [0.0, 0.0], [0.2, 5.0])]


def run(name: str, gradients: list[Array], learning_rate: float = 0.1) -> Array:
    """Parameters from (1, 1) after one step per gradient."""
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = make_optimizer(name, [parameter], learning_rate)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    return parameter.detach().numpy()


def naive(name: str, gradients: list[Array], learning_rate: float = 0.1) -> Array:
    p, first, second = np.ones(2), np.zeros(2), np.zeros(2)
    for t, g in enumerate(gradients, 1):
        if name == "rmsprop_centered":
            first = 0.95 * first + 0.05 * g
            second = 0.95 * second + 0.05 * g**2
            p = p - learning_rate * g / np.sqrt(second - first**2 + 0.01)
        elif name == "adamax_authors":
            first = 0.5 * first + 0.5 * g
            second = np.maximum(0.999 * second, np.abs(g))
            p = p - learning_rate * first / (second + 1e-6)
        else:
            first = 0.5 * first + 0.5 * g
            second = np.maximum(0.999 * second, np.abs(g) + 1e-8)
            p = p - learning_rate / (1 - 0.5**t) * first / second
    return p


ROOT = 0.1 / math.sqrt(0.2)


@pytest.mark.parametrize(
    ("name", "gradients", "expected"),
    [
        # g = 1, then -.5 or .5: m = .5, then 0 or .5; u = 1, then .999. No bias correction: half of lr at first.
        ("adamax_authors", [1], 1 - 0.1 * 0.5 / 1.000001),
        ("adamax_authors", [1, -0.5], 1 - 0.1 * 0.5 / 1.000001),
        ("adamax_authors", [1, 0.5], 1 - 0.1 * 0.5 / 1.000001 - 0.1 * 0.5 / 0.999001),
        # Bias-corrected: the first step is lr for any gradient; then m / (1 - .25) = .5 / .75 over .999.
        ("adamax", [7], 0.9),
        ("adamax", [1, 0.5], 0.9 - 0.1 * (0.5 / 0.75) / 0.999),
        # g = 2, 0: m = .1, n = .2, root sqrt(.2 - .01 + .01); a zero gradient moves nothing (no momentum).
        ("rmsprop_centered", [2], 1 - 2 * ROOT),
        ("rmsprop_centered", [2, 0], 1 - 2 * ROOT),
        # Then g = 1: m = .95 * .095 + .05 = .14025, n = .95 * .19 + .05 = .2305.
        ("rmsprop_centered", [2, 0, 1], 1 - 2 * ROOT - 0.1 / math.sqrt(0.2305 - 0.14025**2 + 0.01)),
    ],
)
def test_steps_by_hand(name: str, gradients: list[float], expected: float) -> None:
    np.testing.assert_allclose(run(name, [np.full(2, float(g)) for g in gradients]), expected, rtol=1e-7)


either_way = pytest.mark.parametrize("numbers_read_on", [("cpu",), ()])  # (): as on CUDA


@either_way
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_against_a_naive_model(
    name: str, numbers_read_on: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS_READ_ON", numbers_read_on)
    np.testing.assert_allclose(run(name, GRADIENTS * 20), naive(name, GRADIENTS * 20), rtol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_dict_round_trip(name: str, tmp_path: object) -> None:
    def fresh() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        linear = nn.Linear(3, 2)
        return linear, make_optimizer(name, linear.parameters(), 0.01)

    def step(linear: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        linear(torch.rand(4, 3, generator=seeded(seed))).square().sum().backward()
        optimizer.step()

    linear, optimizer = fresh()
    for seed in range(3):
        step(linear, optimizer, seed)
    torch.save([linear.state_dict(), optimizer.state_dict()], f"{tmp_path}/state")
    weights, state = torch.load(f"{tmp_path}/state", weights_only=True)
    other, resumed = fresh()
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    for seed in range(3, 6):
        step(linear, optimizer, seed)
        step(other, resumed, seed)
    assert torch.equal(linear.weight, other.weight)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_gradient_stay(name: str) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer(name, [used, unused], 0.1)
    optimizer.step()
    assert torch.equal(used, torch.ones(2))
    used.grad = torch.ones(2)
    optimizer.step()
    assert (used < 1).all()
    assert torch.equal(unused, torch.ones(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_deepcopy_continues_equally(name: str) -> None:
    optimizer = make_optimizer(name, [nn.Parameter(torch.ones(2))], 0.1)
    optimizer.apply([torch.ones(2)])
    twin = copy.deepcopy(optimizer)
    for one in (optimizer, twin):
        one.apply([torch.ones(2)])
    (parameter,), (other,) = (one.param_groups[0]["params"] for one in (optimizer, twin))
    assert other is not parameter
    assert torch.equal(other, parameter)


@pytest.mark.parametrize("optimizer", [AuthorsAdamax, CenteredRMSProp])
def test_closure(optimizer: type[AuthorsAdamax] | type[CenteredRMSProp]) -> None:
    parameter = nn.Parameter(torch.ones(2))
    made = optimizer([parameter], lr=0.1)

    def closure() -> float:
        made.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert made.step(closure) == 2.0
    assert (parameter < 1).all()


def test_learning_rate_may_change_between_steps() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = make_optimizer("adamax_authors", [parameter], 0.1)
    optimizer.param_groups[0]["lr"] = 0.2
    parameter.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), 1 - 0.2 * 0.5 / 1.000001)


def test_errors() -> None:
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamx': .*; did you mean adamax"):
        make_optimizer("adamx", [parameter], 0.1)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="the learning rate must be a positive number"):
            make_optimizer("adamax", [parameter], wrong)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_apply_is_step_with_the_gradients_given(name: str) -> None:
    def made() -> tuple[list[nn.Parameter], MultiTensorOptimizer]:
        parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((3, 1), 2.0))]
        return parameters, make_optimizer(name, parameters, 0.1)

    (stepped, by_step), (applied, by_apply) = made(), made()
    generator = seeded()
    for _ in range(4):
        gradients = [torch.randn(parameter.shape, generator=generator) for parameter in stepped]
        for parameter, gradient in zip(stepped, gradients, strict=True):
            parameter.grad = gradient
        by_step.step()
        by_apply.apply(gradients)
    for one, other in zip(stepped, applied, strict=True):
        assert torch.equal(one, other)
        assert other.grad is None


@either_way
def test_adamax_is_that_of_torch(numbers_read_on: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUMBERS_READ_ON", numbers_read_on)
    parameters = [[nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3))] for _ in range(2)]
    ours = make_optimizer("adamax", parameters[0], 1e-2)
    theirs = torch.optim.Adamax(parameters[1], lr=1e-2, betas=(0.5, 0.999))
    generator = seeded()
    for _ in range(50):
        gradient = torch.randn(2, 3, generator=generator)
        parameters[0][0].grad, parameters[1][0].grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(parameters[0][0], parameters[1][0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_group_added_later_learns_as_from_its_own_start(name: str) -> None:
    """With its own settings; Adamax corrects the bias of its own few steps."""
    early, late, alone = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer, other = make_optimizer(name, [early], 0.1), make_optimizer(name, [alone], 0.2)
    optimizer.apply([torch.ones(2)])
    optimizer.add_param_group({"params": [late], "lr": 0.2})
    for gradient in (torch.ones(2), torch.full((2,), 0.5)):
        optimizer.apply([torch.ones(2), gradient])
        other.apply([gradient])
    assert torch.equal(late, alone)
    assert not torch.equal(early, alone)


def test_the_group_s_tensors_are_saved_and_put_back() -> None:
    """Adamax's b1^t belongs to the group: without it a resumed run would correct its bias anew."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer("adamax", [parameter], 0.1)
    for _ in range(3):
        optimizer.apply([torch.ones(2)])
    tree = copy.deepcopy(optimizer_tree(optimizer))
    twin = nn.Parameter(parameter.detach().clone())
    other = make_optimizer("adamax", [twin], 0.1)
    load_optimizer_tree(other, tree)
    assert other.param_groups[0]["decay"].item() == 0.125
    before = dict(other.state[twin])
    other.apply([torch.ones(2)])
    load_optimizer_tree(other, tree)  # again: a CUDA graph may hold the tensors
    assert all(other.state[twin][name] is tensor for name, tensor in before.items())
    twin.data.copy_(parameter)
    optimizer.apply([torch.full((2,), 0.3)])
    other.apply([torch.full((2,), 0.3)])
    assert torch.equal(parameter, twin)


@pytest.mark.parametrize("optimizer_name", ["adamax", "adamax_authors"])
def test_relative_steps_are_those_of_the_last_update(optimizer_name: str) -> None:
    network = nn.Sequential(Layers("weight_norm").dense(3, 4), nn.ReLU(), Layers("normal").dense(4, 2))
    optimizer = make_optimizer(optimizer_name, network.parameters(), 0.01)
    assert relative_steps(network, optimizer) == {}
    for _ in range(3):
        before = [network[index].weight.v.detach().clone() for index in (0, 2)]
        network(torch.rand(5, 3)).square().sum().backward()
        optimizer.step()
    steps = relative_steps(network, optimizer)
    for index, v in zip((0, 2), before, strict=True):
        after = network[index].weight.v.detach()
        expected = (after - v).norm() / after.norm()
        torch.testing.assert_close(steps[f"relative_step/{index}"], expected, rtol=1e-3, atol=0)
    assert relative_steps(network, make_optimizer("rmsprop_centered", network.parameters(), 0.01)) == {}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_empty_groups_and_rates_that_are_tensors(name: str) -> None:
    found = []
    for rate in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        parameter = nn.Parameter(torch.ones(3))
        optimizer = OPTIMIZERS[name]([{"params": []}, {"params": [parameter]}], rate)
        for _ in range(2):
            parameter.grad = parameter.detach() * 2
            optimizer.step()
            optimizer.apply([parameter.grad])
        found.append(parameter.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)
    assert (found[0] != 1).all()
