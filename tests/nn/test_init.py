"""Data-dependent initialization (eq. 4-5) and torch's own start, over every parameterization."""

import copy
import pickle

import pytest
import torch
from nn_tools import PLAIN, VARIANTS, every_variant, seeded
from torch import Tensor, nn

from wn_rl.nn import (
    Layers,
    data_dependent_init,
    default_init,
    make_network,
    standardize_outputs,
)


def q_network(parameterization: str, log_scale: float | None = None, stack: int = 2) -> nn.Sequential:
    return make_network(
        "minatar_cnn",
        frame_shape=(3, 10, 10),
        stack=stack,
        scale=1.0,
        num_actions=5,
        parameterization=parameterization,
        log_scale=log_scale,
        generator=seeded(),
    )


def observations(count: int, seed: int, stack: int = 2) -> Tensor:
    """Sparse zeros and ones, as MinAtar's."""
    generator = seeded(seed)
    return (torch.rand(count, stack, 3, 10, 10, generator=generator) < 0.2).float()


def pre_activations(network: nn.Sequential, batch: Tensor) -> list[Tensor]:
    found = []
    for module in network:
        batch = module(batch)
        if hasattr(module, "shift"):
            found.append(batch)
    return found


def test_eq_5_golden() -> None:
    """v = (3, 4): t = (3 x0 + 4 x1) / 5 is -3, 5, 13; mean 5, population deviation sqrt(128 / 3)."""
    batch = torch.tensor([[-5.0, 0.0], [3.0, 4.0], [13.0, 6.5]], dtype=torch.float64)
    deviation = (128 / 3) ** 0.5
    for name in PLAIN:
        network = nn.Sequential(Layers(name).dense(2, 1)).double()
        layer = network[0]
        with torch.no_grad():
            layer.weight.v.copy_(torch.tensor([[3.0, 4.0]]))
        data_dependent_init(network, batch)
        weight, bias = layer.folded()
        expected = torch.tensor([[0.6, 0.8]], dtype=torch.float64) / deviation
        torch.testing.assert_close(weight, expected)
        torch.testing.assert_close(bias, torch.tensor([-5 / deviation], dtype=torch.float64))
        if name == "weight_norm":
            torch.testing.assert_close(layer.weight.g.item(), 1 / deviation)
            torch.testing.assert_close(layer.shift.bias.item(), -5 / deviation)
            assert layer.weight.v.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("training", [True, False])
def test_every_parameterization_starts_as_the_same_function(
    dtype: torch.dtype, tolerance: float, training: bool
) -> None:
    batch = observations(64, seed=1).to(dtype)
    reference = None
    for name, log_scale in VARIANTS:
        network = q_network(name, log_scale).to(dtype)
        data_dependent_init(network, batch)
        result = network.train(training)(batch)
        reference = result if reference is None else reference
        torch.testing.assert_close(result, reference, atol=tolerance, rtol=0)


@every_variant
def test_eval_mode_function_is_the_same_on_other_batches(parameterization: str, log_scale: float | None) -> None:
    """The running statistics are the init batch's, so eval mode agrees everywhere."""
    networks = [q_network("normal").double(), q_network(parameterization, log_scale).double()]
    for network in networks:
        data_dependent_init(network, observations(64, seed=1).double())
    fresh = observations(16, seed=2).double()
    torch.testing.assert_close(networks[0].eval()(fresh), networks[1].eval()(fresh), atol=1e-10, rtol=0)


@every_variant
def test_pre_activations_are_standardized(parameterization: str, log_scale: float | None) -> None:
    """Every layer, the output included: mean 0 and population variance 1 over batch and space."""
    network, batch = q_network(parameterization, log_scale), observations(64, seed=1)
    data_dependent_init(network, batch)
    found = pre_activations(network.eval(), batch)
    assert len(found) == 3
    for t in found:
        variance, mean = torch.var_mean(t, [0, *range(2, t.dim())], correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-4, rtol=0)


@every_variant
def test_init_works_in_place_and_restores_the_modes(parameterization: str, log_scale: float | None) -> None:
    network = q_network(parameterization, log_scale)
    network.dense.eval()
    modes = [module.training for module in network.modules()]
    tensors = [*network.parameters(), *network.buffers()]
    addresses, v = [tensor.data_ptr() for tensor in tensors], network.conv.weight.v.detach().clone()
    data_dependent_init(network, observations(8, seed=1))
    assert [module.training for module in network.modules()] == modes
    assert [id(tensor) for tensor in [*network.parameters(), *network.buffers()]] == list(map(id, tensors))
    assert [tensor.data_ptr() for tensor in tensors] == addresses
    assert all(tensor.grad is None and tensor.grad_fn is None for tensor in tensors)
    pickle.dumps(network)  # no hook is left behind
    if parameterization.startswith(("weight_norm", "batch_norm", "normal_fixed_gain")):
        assert torch.equal(network.conv.weight.v, v)


@every_variant
def test_a_second_init_changes_nothing(parameterization: str, log_scale: float | None) -> None:
    network, batch = q_network(parameterization, log_scale).double(), observations(16, seed=1).double()
    data_dependent_init(network, batch)
    once = copy.deepcopy(network)
    data_dependent_init(network, batch)
    torch.testing.assert_close(network.eval()(batch), once.eval()(batch), atol=1e-10, rtol=0)


@every_variant
@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_constant_feature_takes_sigma_1(parameterization: str, log_scale: float | None, level: float) -> None:
    """w = v / |v| and b = -mean: finite, zero on the batch, and alive beside it."""
    layers = Layers(parameterization, log_scale, seeded())
    network = nn.Sequential(layers.dense(4, 3))
    direction = nn.functional.normalize(network[0].weight.v.detach(), dim=1)
    batch = torch.full((16, 4), level)
    data_dependent_init(network, batch)
    network.eval()
    torch.testing.assert_close(network(batch), torch.zeros(16, 3), atol=1e-5, rtol=0)
    step = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(network(batch[:1] + step), direction[:, :1].T, atol=1e-4, rtol=0)


def test_running_statistics_are_the_init_batch() -> None:
    batch = torch.randn(32, 4, generator=seeded(1))
    network = nn.Sequential(Layers("batch_norm").dense(4, 3))
    data_dependent_init(network, batch)
    shift, t = network[0].shift, batch @ network[0].weight.v.detach().T
    torch.testing.assert_close(shift.running_mean, t.mean(0))
    torch.testing.assert_close(shift.running_var, t.var(0, correction=0))
    network = nn.Sequential(Layers("weight_norm_mean_only_bn").dense(4, 3))
    data_dependent_init(network, batch)
    t = batch @ network[0].weight().detach().T
    torch.testing.assert_close(network[0].shift.running_mean, t.mean(0))
    torch.testing.assert_close(t.std(0, correction=0), torch.ones(3))


def test_one_pass_calls_each_layer_once() -> None:
    network, calls = q_network("weight_norm"), []
    for module in network:
        module.register_forward_hook(lambda module, *_: calls.append(module))
    data_dependent_init(network, observations(8, seed=1))
    assert calls == list(network)


def test_errors() -> None:
    with pytest.raises(ValueError, match="two examples or more, got 1"):
        data_dependent_init(q_network("normal"), observations(1, seed=1))
    with pytest.raises(ValueError, match="reparameterize it first"):
        data_dependent_init(nn.Sequential(nn.Linear(2, 2)), torch.rand(4, 2))
    network = nn.Sequential(Layers("weight_norm").dense(2, 2))
    with torch.no_grad():
        network[0].weight.v[0].zero_()
    with pytest.raises(ValueError, match="no direction"):
        data_dependent_init(network, torch.rand(4, 2))
    assert network.training
    assert not network[0]._forward_pre_hooks


@every_variant
def test_default_init_is_torchs(parameterization: str, log_scale: float | None) -> None:
    network, reference = q_network(parameterization, log_scale), q_network("normal")
    data_dependent_init(network, observations(8, seed=1))  # whatever was there before does not matter
    for each in (network, reference):
        default_init(each, seeded(5))
    fresh = observations(16, seed=2)
    torch.testing.assert_close(network.eval()(fresh), reference.eval()(fresh), atol=1e-5, rtol=1e-5)
    for layer, fan_in in ((network.conv, 2 * 3 * 9), (network.dense, 1024), (network.output, 128)):
        weight, bias = layer.folded()
        limit = fan_in**-0.5
        assert 0.9 * limit < weight.abs().max() <= limit * 1.0001
        assert 0 < bias.abs().max() <= limit * 1.0001
    torch.testing.assert_close(network.dense.weight().std().item(), (1 / (3 * 1024)) ** 0.5, rtol=0.01, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    network = nn.Sequential(Layers("weight_norm").dense(4, 3))
    before = copy.deepcopy(network.state_dict())
    batch = torch.ones(8, 4)
    batch[3, 2] = value
    with pytest.raises(ValueError, match="not finite"):
        data_dependent_init(network, batch)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("parameterization", ["normal", "batch_norm", "weight_norm", "weight_norm_mean_only_bn"])
@pytest.mark.parametrize(("spread", "is_constant"), [(1e-2, False), (1e-6, True)])
def test_a_feature_is_constant_by_its_spread_beside_its_level(
    parameterization: str, spread: float, is_constant: bool
) -> None:
    """What rounding alone moves is not blown up to variance 1; what a hundredth of its level moves is."""
    network = nn.Sequential(Layers(parameterization, generator=seeded()).dense(4, 3)).double()
    with torch.no_grad():
        network[0].weight.v.abs_()  # so that no unit's level cancels
    batch = 1 + spread * torch.randn(64, 4, generator=seeded(1), dtype=torch.float64)
    data_dependent_init(network, batch)
    deviations = network.eval()(batch).std(0, correction=0)
    if is_constant:
        assert deviations.max() < 1e-5
    else:
        torch.testing.assert_close(deviations, torch.ones_like(deviations), rtol=1e-3, atol=0)


@every_variant
@pytest.mark.parametrize("output_scale", [0.05, 1.0, 3.0])
def test_the_scale_of_the_outputs(parameterization: str, log_scale: float | None, output_scale: float) -> None:
    """The outputs are those of the paper's pass times the scale; layers before the last one are as there."""
    network, batch = q_network(parameterization, log_scale).double(), observations(64, seed=1).double()
    data_dependent_init(network, batch)
    *hidden, outputs = pre_activations(network.eval(), batch)
    data_dependent_init(network, batch, output_scale)
    *again, scaled = pre_activations(network.eval(), batch)
    torch.testing.assert_close(again, hidden)
    torch.testing.assert_close(scaled, output_scale * outputs)
    standardize_outputs(network, batch, 2.0)
    torch.testing.assert_close(pre_activations(network.eval(), batch), [*hidden, 2 * outputs])


def test_outputs_of_scale_zero_are_zero_and_learn() -> None:
    for name in ("normal", "weight_norm", "batch_norm"):
        network, batch = q_network(name), observations(16, seed=1)
        data_dependent_init(network, batch, 0.0)
        assert network.eval()(batch).abs().max() == 0
        (network.train()(batch) - 1).square().sum().backward()
        assert sum(float(p.grad.abs().sum()) for p in network[-1].parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(("calls", "message"), [([1], "called 0 0 times"), ([0, 0, 1], "called 0 2 times")])
def test_layers_that_the_pass_does_not_call_once_are_named(calls: list[int], message: str) -> None:
    class Heads(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for number in calls:
                x = self[number](input=x)
            return x

    layers = Layers("weight_norm", generator=seeded())
    with pytest.raises(ValueError, match=f"must call each layer once, but it {message}$"):
        data_dependent_init(Heads(layers.dense(3, 3), layers.dense(3, 3)), torch.rand(4, 3))
