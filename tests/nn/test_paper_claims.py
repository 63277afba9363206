"""What Salimans & Kingma 2016 claim of weight normalization, on layers of ours in float64."""

import math

import pytest
import torch
from nn_tools import seeded
from torch import Tensor, nn

from wn_rl.nn import Layers, data_dependent_init


def whitened(count: int, features: int) -> Tensor:
    """Inputs [count, features] with mean 0 and covariance 1, exactly so over the batch."""
    x = torch.randn(count, features, generator=seeded(1), dtype=torch.float64)
    q, _ = torch.linalg.qr(x - x.mean(0))  # columns are orthonormal and stay orthogonal to ones
    return q * math.sqrt(count)


def test_with_whitened_inputs_batch_norm_is_weight_norm() -> None:
    """Section 2.2: then the variance of v.x is |v|^2. The outputs and the gradients of v, gain and bias agree."""
    x = whitened(32, 5)
    results = []
    for name in ("weight_norm", "batch_norm"):
        layer = Layers(name, generator=seeded(2)).dense(5, 3).double().train()
        gain = layer.weight.g if name == "weight_norm" else layer.shift.scale
        with torch.no_grad():
            layer.weight.v.mul_(100)  # the epsilon of 1e-6 is then nothing beside the variance
            gain.copy_(torch.tensor([0.5, 2.0, -1.0]).view(gain.shape))
            layer.shift.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        y = layer(x)
        (y * torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view(y.shape)).sum().backward()
        results.append([y, layer.weight.v.grad, gain.grad.view(-1), layer.shift.bias.grad])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_the_initialization_does_not_depend_on_the_scale_of_v(factor: float) -> None:
    """Section 3."""
    batch = torch.randn(64, 5, generator=seeded(3), dtype=torch.float64)
    outputs = []
    for scale in (1.0, factor):
        layers = Layers("weight_norm", generator=seeded(4))
        network = nn.Sequential(layers.dense(5, 8), nn.ReLU(), layers.dense(8, 2)).double()
        with torch.no_grad():
            for layer in (network[0], network[2]):
                layer.weight.v.mul_(scale)
        data_dependent_init(network, batch)
        outputs.append(network(batch))
    torch.testing.assert_close(*outputs)


def test_plain_gradient_descent_makes_v_longer_by_pythagoras() -> None:
    """Section 6.2: a step of relative length c gives |v| sqrt(1 + c^2), since the gradient is orthogonal to v."""
    layer = Layers("weight_norm", generator=seeded(5)).dense(6, 4).double()
    layer(torch.randn(9, 6, generator=seeded(6), dtype=torch.float64)).pow(3).sum().backward()
    v, step = layer.weight.v.detach(), 0.01 * layer.weight.v.grad
    c = step.norm(dim=1) / v.norm(dim=1)
    assert (c > 1e-3).all()
    torch.testing.assert_close((v - step).norm(dim=1), v.norm(dim=1) * torch.sqrt(1 + c**2))


def test_noise_may_act_in_the_initialization_as_in_training() -> None:
    """With dropout 0.5 the next layer's deviation in training is far from 1, unless the pass has dropout too."""
    batch = torch.randn(4000, 16, generator=seeded(7)).abs()
    deviations = {}
    for with_noise in (False, True):
        torch.manual_seed(0)
        layers = Layers("weight_norm", generator=seeded(8))
        network = nn.Sequential(layers.dense(16, 64), nn.ReLU(), nn.Dropout(0.5), layers.dense(64, 8)).train()
        data_dependent_init(network, batch, with_noise=with_noise)
        assert all(module.training for module in network.modules())
        deviations[with_noise] = float(network(batch).detach().std(0).mean())
    assert deviations[True] == pytest.approx(1, abs=0.05)
    assert deviations[False] > 1.3
