"""Steps that continue from held weights, in torch's operations and in one kernel, against autograd.

The kernel runs in Triton's interpreter on a CPU, and as it is on CUDA.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from nn_tools import seeded
from torch import Tensor, nn

from wn_rl.nn import (
    OPTIMIZERS,
    PARAMETERIZATIONS,
    Bias,
    Layers,
    Normalized,
    Parameterization,
    data_dependent_init,
    held_weights,
    hold_weights,
    make_optimizer,
    make_step,
    optimizer_tree,
    refill_held,
)
from wn_rl.nn.layers import layers_of, named_normalized
from wn_rl.nn.update import steps as module
from wn_rl.nn.weights import Direct, Projected, unit_norms

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


KERNEL = pytest.param("kernel", marks=pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton"))


@pytest.fixture(params=["plain", KERNEL])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What continues from the held weights. `make_step` takes the kernel with fuse=True."""
    monkeypatch.setattr(module, "KERNEL_ON", (DEVICE.type,))
    return str(request.param)


@dataclass(frozen=True)
class Case:
    parameterization: str
    log_scale: float | None = None
    max_v_norm: float | None = None
    memory_format: torch.memory_format = torch.contiguous_format


NORMALIZED = [name for name in PARAMETERIZATIONS if PARAMETERIZATIONS[name].is_normalized]
CASES = [
    *(Case(name, memory_format=torch.channels_last) for name in ("normal", "weight_norm")),
    *(Case(name) for name in PARAMETERIZATIONS),
    *(
        Case(name, log_scale, bound)
        for name in NORMALIZED
        for log_scale, bound in [(3, None), (None, 0.2), (0.5, 0.3)]
    ),
]


def states(seed: int) -> Tensor:
    return torch.randn(16, 3, 6, 6, generator=seeded(seed)).to(DEVICE)


def network_of(case: Case) -> nn.Sequential:
    layers = Layers(case.parameterization, case.log_scale, seeded())
    network = nn.Sequential(
        layers.conv(3, 5, 3), nn.ReLU(), nn.Flatten(), layers.dense(5 * 16, 7), nn.ReLU(), layers.dense(7, 2)
    ).to(DEVICE)
    data_dependent_init(network, states(0))
    network.to(memory_format=case.memory_format)  # type: ignore[call-overload]
    return network.train()


def random_gradients(network: nn.Module, seed: int) -> dict[int, Tensor]:
    """One for each layer's weights, by the id of its v, and one for each parameter that is not v, g or s."""
    generator = seeded(seed)
    hidden = {id(p) for layer in layers_of(network) for name, p in layer.weight.named_parameters() if name != "v"}
    shapes = {id(p): p.shape for p in network.parameters() if id(p) not in hidden}
    return {key: torch.randn(shape, generator=generator).to(DEVICE) for key, shape in shapes.items()}


def update_by_autograd(network: nn.Module, step: Any, gradients: dict[int, Tensor]) -> None:
    """Autograd takes the gradients of weights back to v and g."""
    weights = {id(layer.weight.v): layer.weight() for layer in layers_of(network)}
    others = {id(parameter): parameter for parameter in network.parameters()}
    loss = torch.stack([((others | weights)[key] * gradient).sum() for key, gradient in gradients.items()]).sum()
    step.apply(torch.autograd.grad(loss, step.leaves))


def update_of_held(network: nn.Module, step: Any, gradients: dict[int, Tensor]) -> None:
    """The gradients are given as they are."""
    of_held = {id(layer.held): id(layer.weight.v) for layer in layers_of(network) if layer.held is not None}
    step.apply([gradients[of_held.get(id(leaf), id(leaf))] for leaf in step.leaves])


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        found |= {prefix + name: value} if isinstance(value, Tensor) else flat(value, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def after_five_updates(case: Case, optimizer_name: str, kind: str | None) -> dict[str, Tensor]:
    """Parameters and the optimizer's state, by the same gradients of w from the same start; None: by autograd."""
    network = network_of(case)
    if kind is not None:
        hold_weights(network, torch.float32)
    optimizer = make_optimizer(optimizer_name, network.parameters(), 0.01)
    step = make_step(network, optimizer, case.max_v_norm, fuse=kind == "kernel")
    for seed in range(10, 15):
        gradients = random_gradients(network, seed)
        (update_by_autograd if kind is None else update_of_held)(network, step, gradients)
    if case.max_v_norm is not None:
        for _, weight in named_normalized(network):
            assert unit_norms(weight.v).max() <= case.max_v_norm * 1.0001
    return flat({"network": network.state_dict(), "optimizer": optimizer_tree(optimizer)})


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def require_kernel(parameterization: str, kind: str) -> None:
    """Skip what the kernel does not update: `make_step` compiles the plain step for it."""
    if kind == "kernel" and parameterization.startswith(("projected", "spectral")):
        pytest.skip("there is no kernel for weights that change after an update")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_from_held_weights_is_that_of_autograd(case: Case, kind: str) -> None:
    require_kernel(case.parameterization, kind)
    assert_near(after_five_updates(case, "adamax", kind), after_five_updates(case, "adamax", None))


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_any_optimizer_continues_from_held_weights(optimizer_name: str) -> None:
    case = Case("weight_norm", 3)
    assert_near(after_five_updates(case, optimizer_name, "plain"), after_five_updates(case, optimizer_name, None))


def test_a_network_learns_by_its_held_weights(kind: str) -> None:
    """The gradients of a real loss reach what the layers hold: a regression is fitted."""
    network = network_of(Case("weight_norm"))
    hold_weights(network, torch.float32)
    step = make_step(network, make_optimizer("adamax", network.parameters(), 0.01), None, fuse=kind == "kernel")
    losses = []
    for _ in range(40):
        loss = (network(states(1)) - torch.tensor([1.0, -1.0], device=DEVICE)).square().mean()
        step.apply(torch.autograd.grad(loss, step.leaves))
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_weights_are_those_of_the_parameters_after_each_step(
    parameterization: str, dtype: torch.dtype, kind: str
) -> None:
    require_kernel(parameterization, kind)
    network = network_of(Case(parameterization))
    hold_weights(network, dtype)
    optimizer = make_optimizer("adamax", network.parameters(), 0.01)
    step = make_step(network, optimizer, None, fuse=kind == "kernel")
    generator = seeded(1)
    before = [leaf.detach().clone() for leaf in step.leaves]
    for _ in range(3):
        step.apply([torch.randn(leaf.shape, generator=generator).to(leaf) for leaf in step.leaves])
    assert all(not torch.equal(leaf, value) for leaf, value in zip(step.leaves, before, strict=True))
    for layer in layers_of(network):
        assert (layer.held is None) == (dtype == torch.float32 and type(layer.weight) in (Direct, Projected))
        if layer.held is not None:
            rounding = 1e-6 if dtype == torch.float32 else 2**-7  # the interpreter cuts off
            torch.testing.assert_close(layer.held.float(), layer.weight(), rtol=rounding, atol=1e-7)


class Clamped(nn.Module):
    """w = v within bounds: no class of the package's."""

    def __init__(self, v: Tensor) -> None:
        super().__init__()
        self.v = nn.Parameter(v)

    def forward(self) -> Tensor:
        return self.v.clamp(-0.05, 0.05)

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        self.v.mul_(scale.view(-1, *[1] * (self.v.dim() - 1)))


class Centered(Normalized):
    """Centered weight normalization (Huang et al. 2017), by the same parameters."""

    def forward(self) -> Tensor:
        centered = self.v - self.v.mean(tuple(range(1, self.v.dim())), keepdim=True)
        return self.gain() * centered / unit_norms(centered)


@pytest.mark.parametrize("weight", [Clamped, Centered])
def test_weights_of_a_class_of_ones_own_are_differentiated_by_autograd(
    weight: type[nn.Module], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARAMETERIZATIONS, "own", Parameterization(weight, Bias))  # type: ignore[arg-type]

    def after_updates(*, hold: bool) -> dict[str, Tensor]:
        network = network_of(Case("own"))
        if hold:
            hold_weights(network[:-1], torch.float32)
            hold_weights(network[-1], torch.float32)
        optimizer = make_optimizer("adamax", network.parameters(), 0.01)
        step = make_step(network, optimizer, None, fuse=hold and kind == "kernel")
        for seed in range(10, 15):
            loss = (network(states(seed)) - 1).square().mean()
            step.apply(torch.autograd.grad(loss, step.leaves))
        return flat({"network": network.state_dict(), "optimizer": optimizer_tree(optimizer)})

    assert_near(after_updates(hold=True), after_updates(hold=False))


def test_held_weights_are_refilled_from_new_parameters_or_from_what_is_known() -> None:
    network, other = network_of(Case("weight_norm")), network_of(Case("weight_norm"))
    hold_weights(network, torch.float32)
    with torch.no_grad():
        for parameter in (*network.parameters(), *other.parameters()):
            parameter.mul_(1.5)
    assert not torch.allclose(network(states(1)), other(states(1)))
    refill_held(network)
    torch.testing.assert_close(network(states(1)), other(states(1)))
    known = {name: torch.full_like(held, 2) for name, held in list(held_weights(network).items())[:1]}
    refill_held(network, known)
    first, *rest = held_weights(network).values()
    assert (first == 2).all()
    assert len(known) == 1
    assert not any((held == 2).any() for held in rest)


def test_held_weights_are_for_training_mode_alone() -> None:
    network = network_of(Case("weight_norm"))
    expected = network(states(1)).detach()
    hold_weights(network, torch.float32)
    for layer in layers_of(network):
        assert layer.held is not None
        layer.held.detach().zero_()
    torch.testing.assert_close(network.eval()(states(1)), expected)
    assert network.train()(states(1)).abs().max() < expected.abs().max()


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_what_cannot_be_fused_is_refused() -> None:
    from wn_rl.nn.update.fused import FusedAdamax

    network = network_of(Case("weight_norm"))
    parameters = list(network.parameters())
    with pytest.raises(ValueError, match="must be held"):
        FusedAdamax(network, make_optimizer("adamax", parameters, 0.01), 1.0)
    hold_weights(network, torch.float32)
    with pytest.raises(ValueError, match="only an Adamax"):
        FusedAdamax(network, make_optimizer("rmsprop_centered", parameters, 0.01), None)
    mixed = nn.Sequential(network, network_of(Case("weight_norm", log_scale=3)))
    hold_weights(mixed, torch.float32)
    with pytest.raises(ValueError, match="one log-scale"):
        FusedAdamax(mixed, make_optimizer("adamax", mixed.parameters(), 0.01), None)


@pytest.mark.parametrize("case", [case for case in CASES if case.log_scale or case.max_v_norm], ids=str)
def test_held_weights_follow_a_log_scale_and_a_bound(case: Case, kind: str) -> None:
    """The bound shrinks v, and w must not notice."""
    network = network_of(case)
    hold_weights(network, torch.float32)
    step = make_step(
        network, make_optimizer("adamax", network.parameters(), 0.01), case.max_v_norm, fuse=kind == "kernel"
    )
    for seed in range(10, 13):
        update_of_held(network, step, random_gradients(network, seed))
    for layer in layers_of(network):
        assert layer.held is not None
        torch.testing.assert_close(layer.held.detach(), layer.weight().detach(), rtol=1e-5, atol=1e-7)


def test_a_layer_that_is_large_takes_its_held_weight_too() -> None:
    """From 2**20 products on, a dense layer on a CPU has a function of its own."""
    network = nn.Sequential(Layers("weight_norm", generator=seeded()).dense(1024, 1024))
    hold_weights(network, torch.float32)
    held = network[0].held
    assert held is not None
    x = torch.randn(2, 1024, generator=seeded(1))
    (gradient,) = torch.autograd.grad(network(x).sum(), held)
    torch.testing.assert_close(gradient, x.sum(0).expand(1024, -1))
    held.detach().zero_()
    assert not network(x).any()
