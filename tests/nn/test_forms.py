"""Forms of normalization since the paper: layer norm, projected and spectral weights; layers chosen by name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from nn_tools import WITH_LAYER_NORM, seeded
from torch import Tensor, nn

from wn_rl.nn import (
    Dense,
    Layers,
    data_dependent_init,
    fold,
    hold_weights,
    make_network,
    make_optimizer,
    make_step,
    refill,
    reparameterize,
)
from wn_rl.nn.layers import named_layers
from wn_rl.nn.shifts import LayerNorm
from wn_rl.nn.weights import Projected, SpectralNorm, unit_norms

TWO_LAYERS = ["projected", "projected_batch_norm", "spectral_norm", "projected_layer_norm"]


def small_network(parameterization: str) -> nn.Sequential:
    layers = Layers(parameterization, generator=seeded())
    return nn.Sequential(layers.conv(2, 3, 2), nn.ReLU(), nn.Flatten(), layers.dense(3 * 9, 4))


def images(count: int = 16) -> Tensor:
    return torch.rand(count, 2, 4, 4, generator=seeded(1))


def q_network(parameterization: str, *overrides: str) -> nn.Sequential:
    return make_network(
        "minatar_cnn",
        frame_shape=(2, 10, 10),
        stack=1,
        scale=1.0,
        num_actions=3,
        parameterization=parameterization,
        overrides=overrides,
        generator=seeded(),
    )


def test_layer_norm_golden() -> None:
    """Features 1, 2, 6 have mean 3 and variance 14 / 3, whatever the other examples and pixels are."""
    shift = LayerNorm(torch.tensor([0.0, 1.0, 0.0]))
    with torch.no_grad():
        shift.scale.copy_(torch.tensor([1.0, 2.0, -1.0]))
    t = torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    normalized = torch.tensor([-2.0, -1.0, 3.0]) / (14 / 3) ** 0.5
    expected = torch.stack([normalized * torch.tensor([1.0, 2.0, -1.0]), torch.zeros(3)])
    expected[:, 1] += 1
    torch.testing.assert_close(shift(t, -1), expected, atol=1e-5, rtol=1e-5)
    pixels = t[:, :, None, None].expand(2, 3, 4, 5)
    torch.testing.assert_close(shift(pixels, -3)[:, :, 2, 3], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("parameterization", [*WITH_LAYER_NORM, *TWO_LAYERS])
def test_gradients_are_those_of_finite_differences(parameterization: str) -> None:
    """Of sigma too: its vectors depend on v, which makes no difference at the true ones."""
    network = small_network(parameterization).double()
    x = images(3).double().requires_grad_()
    network(x.detach())
    parameters = [p for p in network.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: network(x), (x, *parameters), atol=1e-6)


@pytest.mark.parametrize("parameterization", WITH_LAYER_NORM)
def test_a_fold_keeps_layer_norm_and_follows_its_module(parameterization: str) -> None:
    network = small_network(parameterization)
    folded = fold(network, fast=True, share=True)
    assert isinstance(folded[3], Dense)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    refill(folded, network)
    torch.testing.assert_close(folded(images()), network.eval()(images()))
    _, left = reparameterize(copy.deepcopy(network), "normal")
    assert left == ["0: its layer norm depends on the example", "3: its layer norm depends on the example"]


@pytest.mark.parametrize("parameterization", WITH_LAYER_NORM)
def test_the_initialization_standardizes_what_layer_norm_gives(parameterization: str) -> None:
    network, batch = small_network(parameterization).double(), images(64).double()
    data_dependent_init(network, batch, 0.1)
    hidden = network[0](batch)
    variance, mean = torch.var_mean(hidden, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-9, rtol=0)
    torch.testing.assert_close(variance, torch.ones_like(variance))
    outputs = network(batch)
    torch.testing.assert_close(outputs.var(0, correction=0), torch.full_like(outputs[0], 0.01))


def trained(network: nn.Sequential, *, held: torch.dtype | None = None, rate: float = 0.01) -> nn.Sequential:
    """By `make_step`, as in training. held: with weights held in this type."""
    if held is not None:
        hold_weights(network, held)
    step = make_step(network, make_optimizer("adamax", network.parameters(), rate), None, fuse=False)
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16, enabled=held == torch.bfloat16):
            loss = F.mse_loss(network(images()).float(), torch.ones(16, 4))
        step.apply(torch.autograd.grad(loss, step.leaves))
    return network


@pytest.mark.parametrize("parameterization", ["projected", "projected_batch_norm", "projected_layer_norm"])
@pytest.mark.parametrize("held", [None, torch.bfloat16])
def test_projected_norms_stay_those_of_the_initialization(parameterization: str, held: torch.dtype | None) -> None:
    network = small_network(parameterization)
    data_dependent_init(network, images())
    before = {name: unit_norms(layer.weight.v).clone() for name, layer in named_layers(network)}
    directions = {name: layer.weight.v.detach().clone() for name, layer in named_layers(network)}
    for name, layer in named_layers(trained(network, held=held)):
        torch.testing.assert_close(unit_norms(layer.weight.v), before[name])
        assert (layer.weight.v - directions[name]).abs().max() > 1e-3, "it has learned"


def test_a_projected_unit_of_zeros_stays_one() -> None:
    weight = Projected(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    with torch.no_grad():
        weight.v += 1
    weight.after_update()
    torch.testing.assert_close(weight.v, torch.tensor([[0.0, 0.0], [4.0, 5.0]]) * 5 / 41**0.5)


def largest(w: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(w.flatten(1), 2)


@pytest.mark.parametrize("held", [None, torch.float32])
def test_the_spectral_norm_stays_that_of_the_initialization(held: torch.dtype | None) -> None:
    network = small_network("spectral_norm")
    data_dependent_init(network, images())
    before = {name: largest(layer.weight().detach()) for name, layer in named_layers(network)}
    for name, layer in named_layers(trained(network, held=held, rate=0.1)):
        torch.testing.assert_close(largest(layer.weight().detach()), before[name], rtol=0.02, atol=0)
        assert largest(layer.weight.v.detach()) > 1.05 * before[name], "that of v does not"


def test_spectral_gradients_of_held_weights_are_those_of_autograd() -> None:
    weight = SpectralNorm(torch.randn(4, 3, 2, 2, generator=seeded(3)))
    of_w = torch.randn(4, 3, 2, 2, generator=seeded(4))
    ((_, gradient),) = weight.gradients(of_w)
    torch.testing.assert_close(gradient, torch.autograd.grad((weight() * of_w).sum(), weight.v)[0])


def test_layers_are_chosen_by_name() -> None:
    kinds = {
        name: (type(x.weight).__name__, type(x.shift).__name__) for name, x in named_layers(q_network("projected"))
    }
    assert kinds == {"conv": ("Projected", "Bias"), "dense": ("Projected", "Bias"), "output": ("Direct", "Bias")}
    network = q_network("weight_norm", "output=normal", "dense=spectral_norm")
    kinds = {name: (type(x.weight).__name__, type(x.shift).__name__) for name, x in named_layers(network)}
    assert kinds == {
        "conv": ("Normalized", "Bias"),
        "dense": ("SpectralNorm", "Bias"),
        "output": ("Direct", "Bias"),
    }
    plain = q_network("normal")
    for (_, one), (_, other) in zip(named_layers(network), named_layers(plain), strict=True):
        torch.testing.assert_close(one.weight(), other.weight())
    wrong = {
        "head=normal": "the layers of minatar_cnn are conv, dense, output",
        "output=norml": "did you mean normal",
        "output": "LAYER=PARAMETERIZATION",
    }
    for override, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            q_network("weight_norm", override)


def test_a_network_of_different_layers_is_updated_as_one() -> None:
    network = q_network("weight_norm", "output=normal", "dense=projected_batch_norm")
    frames = torch.rand(16, 1, 2, 10, 10, generator=seeded(5))
    data_dependent_init(network, frames)
    hold_weights(network, torch.float32)
    step = make_step(network, make_optimizer("adamax", network.parameters(), 0.01), None, fuse=False)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(network(frames), torch.ones(16, 3))
        step.apply(torch.autograd.grad(loss, step.leaves))
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    torch.testing.assert_close(fold(network)(frames), network.eval()(frames), atol=1e-5, rtol=1e-5)
