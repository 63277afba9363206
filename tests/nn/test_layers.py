"""Layers: eq. 2, 3, 6 and 7 in golden numbers and finite differences, the two axes, and the bound on |v|."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_tools import PLAIN, VARIANTS, every_variant, seeded
from torch import Tensor, nn

from wn_rl.nn import (
    PARAMETERIZATIONS,
    BatchNorm,
    Bias,
    Conv,
    Dense,
    Direct,
    Layers,
    MeanOnlyBatchNorm,
    Normalized,
    bound_v,
    norms,
)
from wn_rl.nn.shifts import LayerNorm
from wn_rl.nn.weights import FixedGain, Projected, SpectralNorm, unit_norms


def small_network(parameterization: str, log_scale: float | None = None) -> nn.Sequential:
    layers = Layers(parameterization, log_scale, seeded())
    return nn.Sequential(layers.conv(2, 3, 2), nn.ReLU(), nn.Flatten(), layers.dense(3 * 9, 4))


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 2, 4, 4, generator=seeded(1))


def test_eq_2_golden() -> None:
    """With one norm per row or filter."""
    for v, g, w in (
        (torch.tensor([[3.0, 4.0], [0.0, -2.0]]), [10.0, 0.5], torch.tensor([[6.0, 8.0], [0.0, -0.5]])),
        (torch.ones(2, 4, 3, 3), [3.0, 12.0], torch.tensor([0.5, 2.0]).view(2, 1, 1, 1).expand(2, 4, 3, 3)),
    ):
        weight = Normalized(v)
        weight.set_g(torch.tensor(g))
        torch.testing.assert_close(weight(), w)
    weight = Normalized(torch.tensor([[3.0, 4.0]]), log_scale=3.0)
    with torch.no_grad():
        weight.s.fill_(math.log(2.0) / 3)
    torch.testing.assert_close(weight(), torch.tensor([[1.2, 1.6]]))
    assert "g" not in weight.state_dict()


def test_eq_3_golden() -> None:
    """v = (3, 4), g = 10, dL/dw = (1, 2): dL/dg = 11/5 and dL/dv = 2 (1, 2) - 10 * 2.2 / 25 (3, 4)."""
    weight = Normalized(torch.tensor([[3.0, 4.0]]))
    weight.set_g(torch.tensor([10.0]))
    (weight() * torch.tensor([[1.0, 2.0]])).sum().backward()
    torch.testing.assert_close(weight.g.grad, torch.tensor([[2.2]]))
    torch.testing.assert_close(weight.v.grad, torch.tensor([[-0.64, 0.48]]))


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 2, 2)])
@pytest.mark.parametrize("log_scale", [None, 3.0])
def test_eq_3_against_numpy_and_finite_differences(shape: tuple[int, ...], log_scale: float | None) -> None:
    v = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    scale = torch.rand(shape[0], generator=seeded(1), dtype=torch.float64) + 0.5
    weight = Normalized(v, log_scale)
    weight.set_g(scale)
    gradient = torch.randn(shape, generator=seeded(2), dtype=torch.float64)
    weight().backward(gradient)

    rows, upstream = v.flatten(1).numpy(), gradient.flatten(1).numpy()
    g, length = scale.numpy()[:, None], np.sqrt((rows**2).sum(1, keepdims=True))
    dg = (upstream * rows).sum(1, keepdims=True) / length
    dv = g / length * upstream - g * dg / length**2 * rows
    np.testing.assert_allclose(weight.v.grad.flatten(1).numpy(), dv, rtol=1e-12, atol=1e-14)
    if log_scale is None:
        np.testing.assert_allclose(weight.g.grad.flatten(1).numpy(), dg, rtol=1e-12, atol=1e-14)
    else:
        np.testing.assert_allclose(weight.s.grad.flatten(1).numpy(), dg * log_scale * g, rtol=1e-12, atol=1e-14)

    names = [name for name, _ in weight.named_parameters()]

    def w(*values: Tensor) -> Tensor:
        made: Tensor = torch.func.functional_call(weight, dict(zip(names, values, strict=True)), ())
        return made

    assert torch.autograd.gradcheck(w, tuple(weight.parameters()))


@given(
    seed=st.integers(0, 2**31),
    out=st.integers(1, 6),
    inputs=st.integers(1, 40),
    stretch=st.floats(1e-3, 1e3),
)
@settings(max_examples=40, deadline=None)
def test_weights_have_norm_g_and_gradients_orthogonal_to_v(
    seed: int, out: int, inputs: int, stretch: float
) -> None:
    """|w| = g whatever v's length (section 2), and dL/dv . v = 0 (section 6.2)."""
    generator = seeded(seed)
    v = torch.randn(out, inputs, generator=generator, dtype=torch.float64)
    weight = Normalized(v * stretch)
    g = torch.randn(out, generator=generator, dtype=torch.float64)
    weight.set_g(g)
    torch.testing.assert_close(weight().norm(dim=1), g.abs())
    weight().backward(torch.randn(out, inputs, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(
        (weight.v.grad * weight.v / stretch).sum(1) * stretch, g.new_zeros(out), atol=1e-9, rtol=0
    )


def test_eq_6_golden() -> None:
    shift = MeanOnlyBatchNorm(torch.tensor([0.5, -1.0]))
    t = torch.tensor([[1.0, 10.0], [3.0, 30.0]])  # means 2 and 20
    torch.testing.assert_close(shift(t, -1), torch.tensor([[-0.5, -11.0], [1.5, 9.0]]))
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.2, 2.0]))
    shift(t, -1)
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.38, 3.8]))
    shift.eval()
    torch.testing.assert_close(shift(t, -1), torch.tensor([[1.12, 5.2], [3.12, 25.2]]))
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.38, 3.8]))


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), -1), ((2, 3, 2, 2), -3), ((2, 5, 3), -1)])
def test_eq_7_centres_the_gradient(shape: tuple[int, ...], axis: int) -> None:
    shift = MeanOnlyBatchNorm(torch.randn(3, generator=seeded(), dtype=torch.float64))
    t = torch.randn(shape, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(shape, generator=seeded(2), dtype=torch.float64)
    shift(t, axis).backward(upstream)
    over = tuple(i for i in range(len(shape)) if i != len(shape) + axis)
    numbers = upstream.numpy()
    np.testing.assert_allclose(t.grad.numpy(), numbers - numbers.mean(over, keepdims=True), atol=1e-15)
    np.testing.assert_allclose(shift.bias.grad.numpy(), numbers.sum(over), atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: shift(x, axis), (t,))


def test_batch_norm_golden() -> None:
    shift = BatchNorm(torch.tensor([1.0]))
    with torch.no_grad():
        shift.scale.fill_(2.0)
    t = torch.tensor([[1.0], [3.0], [5.0], [7.0]])  # mean 4, population variance 5, unbiased 20 / 3
    expected = 1 + 2 * (t - 4) / math.sqrt(5 + 1e-6)
    torch.testing.assert_close(shift(t, -1), expected)
    torch.testing.assert_close(shift.running_mean, torch.tensor([0.4]))
    torch.testing.assert_close(shift.running_var, torch.tensor([0.9 + 0.1 * 20 / 3]))
    shift.eval()
    expected = 1 + 2 * (t - 0.4) / math.sqrt(0.9 + 2 / 3 + 1e-6)
    torch.testing.assert_close(shift(t, -1), expected)


def test_batch_norm_features_on_the_last_axis() -> None:
    t = torch.randn(4, 5, 3, generator=seeded())
    flat, stacked = BatchNorm(torch.zeros(3)), BatchNorm(torch.zeros(3))
    torch.testing.assert_close(stacked(t, -1), flat(t.flatten(0, 1), -1).view_as(t))
    torch.testing.assert_close(stacked.running_var, flat.running_var)


def test_registry_is_the_two_axes_of_the_design() -> None:
    kinds = {name: (kind.weight, kind.shift) for name, kind in PARAMETERIZATIONS.items()}
    assert kinds == {
        "normal": (Direct, Bias),
        "normal_fixed_gain": (FixedGain, Bias),
        "batch_norm": (Direct, BatchNorm),
        "layer_norm": (Direct, LayerNorm),
        "projected": (Projected, Bias),
        "projected_layer_norm": (Projected, LayerNorm),
        "projected_batch_norm": (Projected, BatchNorm),
        "spectral_norm": (SpectralNorm, Bias),
        "weight_norm": (Normalized, Bias),
        "weight_norm_mean_only_bn": (Normalized, MeanOnlyBatchNorm),
    }


@every_variant
def test_layers_compute_operation_then_shift_with_one_bias(parameterization: str, log_scale: float | None) -> None:
    """In eval mode a fresh layer is w.x + b; its bias counts once."""
    layers = Layers(parameterization, log_scale, seeded())
    conv, dense = layers.conv(2, 3, 2, stride=2, padding=1), layers.dense(6, 4)
    x, features = images(), torch.rand(5, 6, generator=seeded(3))
    for layer, data, operation in (
        (conv, x, lambda w, b: nn.functional.conv2d(x, w, b, stride=2, padding=1)),
        (dense, features, lambda w, b: nn.functional.linear(features, w, b)),
    ):
        layer.eval()
        with torch.no_grad():
            layer.shift.bias.copy_(torch.arange(1.0, 1 + len(layer.shift.bias)))
        expected = operation(layer.weight.v, layer.shift.bias)
        torch.testing.assert_close(layer(data), expected)
        weight, bias = layer.folded()
        torch.testing.assert_close(operation(weight, bias), expected)
    assert len([key for key in conv.state_dict() if "bias" in key]) == 1


@pytest.mark.parametrize("parameterization", PLAIN)
def test_order_is_operation_statistics_shift(parameterization: str) -> None:
    """In training the statistics are those of w.x, taken before b is added."""
    dense = Layers(parameterization, generator=seeded()).dense(3, 2).double()
    x = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        dense.shift.bias.fill_(5.0)
    t = x @ dense.weight().detach().T
    y = dense(x).detach()
    if not PARAMETERIZATIONS[parameterization].has_batch_statistics:
        torch.testing.assert_close(y, t + 5)
    else:
        torch.testing.assert_close(y.mean(0), torch.full((2,), 5.0, dtype=torch.float64))
        torch.testing.assert_close(dense.shift.running_mean, 0.1 * t.mean(0))


@every_variant
def test_dense_takes_any_leading_axes(parameterization: str, log_scale: float | None) -> None:
    dense = Layers(parameterization, log_scale, seeded()).dense(3, 2)
    x = torch.randn(4, 5, 3, generator=seeded(1))
    torch.testing.assert_close(dense(x), dense(x.flatten(0, 1)).view(4, 5, 2))
    dense.eval()
    torch.testing.assert_close(dense(x[0, 0]), dense(x)[0, 0])


def test_state_dict_keys_are_stable() -> None:
    def keys(parameterization: str, log_scale: float | None = None) -> list[str]:
        return list(nn.Sequential(Layers(parameterization, log_scale).dense(2, 2)).state_dict())

    assert keys("normal") == ["0.weight.v", "0.shift.bias"]
    assert keys("weight_norm") == ["0.weight.v", "0.weight.g", "0.shift.bias"]
    assert keys("weight_norm", 3.0) == ["0.weight.v", "0.weight.s", "0.shift.bias"]
    assert keys("weight_norm_mean_only_bn")[2:] == ["0.shift.bias", "0.shift.running_mean"]
    statistics = ["0.shift.running_mean", "0.shift.running_var"]
    assert keys("batch_norm") == ["0.weight.v", "0.shift.scale", "0.shift.bias", *statistics]


def test_equal_generators_give_equal_draws() -> None:
    draws = [small_network(name, log_scale) for name, log_scale in VARIANTS]
    for network in draws[1:]:
        for index in (0, 3):
            assert torch.equal(network[index].weight.v, draws[0][index].weight.v)
    v = Layers("normal", generator=seeded()).dense(400, 100).weight.v
    assert abs(v.std().item() - 0.05) < 0.001


@every_variant
def test_copies_are_equal(parameterization: str, log_scale: float | None) -> None:
    network = small_network(parameterization, log_scale)
    network(images())  # moves the running statistics
    loaded = small_network(parameterization, log_scale)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), loaded):
        assert torch.equal(twin.eval()(images()), network.eval()(images()))
        assert twin[0].weight.v.data_ptr() != network[0].weight.v.data_ptr()


@every_variant
def test_compiles_in_one_graph_to_the_same_gradients(parameterization: str, log_scale: float | None) -> None:
    eager = small_network(parameterization, log_scale)
    compiled = copy.deepcopy(eager)
    eager(images()).square().sum().backward()
    torch.compiler.reset()  # it limits how many programs one function has
    torch.compile(compiled, fullgraph=True, backend="aot_eager")(images()).square().sum().backward()
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(eager.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_channels_last_changes_nothing() -> None:
    network = small_network("weight_norm")
    expected = network(images())
    network.to(memory_format=torch.channels_last)
    result = network(images().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected)
    result.sum().backward()


@pytest.mark.parametrize("maximum", [0.05, 0.25, 1e6])
@pytest.mark.parametrize("log_scale", [None, 3.0])
def test_bound_keeps_the_function(maximum: float, log_scale: float | None) -> None:
    network = small_network("weight_norm", log_scale)
    before, result = copy.deepcopy(network), network(images())
    views = [parameter.data_ptr() for parameter in network.parameters()]
    bound_v(network, maximum)
    assert [parameter.data_ptr() for parameter in network.parameters()] == views
    torch.testing.assert_close(network(images()), result)
    for index in (0, 3):
        old, new = before[index].weight.v.flatten(1), network[index].weight.v.flatten(1)
        assert (new.norm(dim=1) <= maximum * (1 + 1e-6)).all()
        kept = old.norm(dim=1) <= maximum
        assert torch.equal(new[kept], old[kept])


def test_bound_is_positive_and_leaves_direct_weights() -> None:
    network = small_network("normal")
    before = network[0].weight.v.clone()
    bound_v(network, 1e-3)
    assert torch.equal(network[0].weight.v, before)
    with pytest.raises(ValueError, match="must be positive, not 0"):
        bound_v(network, 0)


def test_norms_are_means_over_units() -> None:
    weight = Normalized(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    weight.set_g(torch.tensor([10.0, -2.0]))
    network = nn.Sequential()
    network.add_module("dense", Dense(weight, Bias(torch.zeros(2))))
    found = norms(network)
    assert {key: value.item() for key, value in found.items()} == {"norm_v/dense": 3.0, "norm_g/dense": 6.0}
    assert norms(small_network("normal")) == {}


def test_errors_are_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"unknown parameterization 'weightnorm': .*; did you mean weight_norm"):
        Layers("weightnorm")
    with pytest.raises(ValueError, match="log_scale needs a weight_norm parameterization, not 'batch_norm'"):
        Layers("batch_norm", log_scale=3.0)
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"log_scale must be a positive number, not {wrong}"):
            Layers("weight_norm", wrong)
    with pytest.raises(ValueError, match="log-scale g is positive"):
        Normalized(torch.ones(1, 2), log_scale=3.0).set_g(torch.tensor([-1.0]))


def test_convolution_options() -> None:
    """Groups, dilation and 'same' padding reach the operation."""
    v = torch.randn(4, 1, 3, 3, generator=seeded())
    conv = Conv(Normalized(v), Bias(torch.zeros(4)), padding="same", dilation=2, groups=2)
    expected = nn.functional.conv2d(images(), v, padding="same", dilation=2, groups=2)
    torch.testing.assert_close(conv(images()), expected)


@pytest.mark.parametrize("log_scale", [0.5, 3.0])
def test_layers_take_the_log_scale_that_was_asked_for(log_scale: float) -> None:
    """No function tells: s starts at log |v| / c. But c is how fast g moves."""
    layers = Layers("weight_norm", log_scale)
    for weight in (layers.dense(4, 3).weight, layers.conv(2, 3, 3).weight):
        assert weight.log_scale == log_scale
        torch.testing.assert_close(weight.s, unit_norms(weight.v).log() / log_scale)
