"""Q-networks: shapes, the one place of scaling and stacking, names and sizes that are refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
from nn_tools import PLAIN, seeded
from torch import nn

from wn_rl.nn import (
    NETWORKS,
    PARAMETERIZATIONS,
    Layer,
    Layers,
    Preprocess,
    data_dependent_init,
    fold,
    make_network,
    refill,
    reparameterize,
    scale_in_first_convolution,
)
from wn_rl.nn.layers import named_normalized

SETTINGS: dict[str, dict[str, Any]] = {
    "nature_cnn": {"frame_shape": (84, 84), "stack": 4, "scale": 1 / 255, "num_actions": 6},
    "minatar_cnn": {"frame_shape": (4, 10, 10), "stack": 1, "scale": 1.0, "num_actions": 3},
    "mlp": {"frame_shape": (4,), "stack": 1, "scale": 1.0, "num_actions": 2},
}


def network_of(name: str, parameterization: str = "weight_norm", **changes: Any) -> nn.Sequential:
    generator = seeded()
    chosen = {**SETTINGS[name], "generator": generator, **changes}
    return make_network(name, parameterization=parameterization, **chosen)


def observations(name: str, count: int = 3) -> torch.Tensor:
    setting = SETTINGS[name]
    generator = seeded(1)
    shape = (count, setting["stack"], *setting["frame_shape"])
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_every_network_has_a_setting_here() -> None:
    assert set(SETTINGS) == set(NETWORKS)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_action_values_of_any_observation_dtype(name: str, parameterization: str) -> None:
    network, frames = network_of(name, parameterization).eval(), observations(name)
    values = network(frames)
    assert values.shape == (3, SETTINGS[name]["num_actions"])
    assert values.dtype == torch.float32
    torch.testing.assert_close(network(frames.float()), values)
    torch.testing.assert_close(network(frames.double()), values)
    network.double()
    assert network(frames).dtype == torch.float64
    torch.testing.assert_close(network(frames).float(), values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_deepcopy_and_pickle(name: str) -> None:
    network, frames = network_of(name).eval(), observations(name)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(frames), network(frames))


@pytest.mark.parametrize(
    ("frame_shape", "merged"), [((84, 84), (4, 84, 84)), ((3, 10, 10), (12, 10, 10)), ((5,), (20,))]
)
def test_preprocess_scales_and_merges_the_stack(frame_shape: tuple[int, ...], merged: tuple[int, ...]) -> None:
    preprocess = Preprocess(frame_shape, stack=4, scale=0.5)
    frames = torch.randint(0, 256, (2, 4, *frame_shape), dtype=torch.uint8)
    result = preprocess(frames)
    assert result.shape == (2, *merged)
    assert preprocess.output_shape == merged
    assert torch.equal(result.flatten(), frames.flatten().float() / 2)
    floats = frames.float()
    preprocess(floats)
    assert torch.equal(floats, frames.float()), "the caller's tensor is not scaled in place"
    assert preprocess.state_dict() == {}


def test_preprocess_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected observations \[B, \*\(4, 10, 10\)\], got \(2, 10"):
        Preprocess((10, 10), stack=4, scale=1.0)(torch.zeros(2, 10, 10, 4))


def test_architectures_are_the_papers() -> None:
    def shapes(network: nn.Sequential) -> list[tuple[int, ...]]:
        return [tuple(layer.weight.v.shape) for layer in network if isinstance(layer, Layer)]

    nature = network_of("nature_cnn", num_actions=4)
    assert shapes(nature) == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (4, 512)]
    assert [nature[i].geometry.stride for i in (1, 3, 5)] == [(4, 4), (2, 2), (1, 1)]
    plain = network_of("nature_cnn", "normal", num_actions=4)
    assert sum(parameter.numel() for parameter in plain.parameters()) == 1_686_180
    assert shapes(network_of("minatar_cnn")) == [(16, 4, 3, 3), (128, 1024), (3, 128)]
    assert shapes(network_of("mlp")) == [(64, 4), (64, 64), (2, 64)]


@pytest.mark.parametrize("name", NETWORKS)
def test_nonlinearity_follows_every_layer_but_the_last(name: str) -> None:
    network = [module for module in network_of(name) if not isinstance(module, (Preprocess, nn.Flatten))]
    assert [isinstance(module, Layer) for module in network] == [i % 2 == 0 for i in range(len(network))]
    assert all(isinstance(module, nn.ReLU) for module in network[1::2])


def test_equal_seeds_give_equal_networks() -> None:
    one, other = network_of("mlp"), network_of("mlp")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    third = network_of("mlp", generator=seeded(7))
    assert not torch.equal(third.dense1.weight.v, one.dense1.weight.v)


@pytest.mark.parametrize("name", ["nature_cnn", "minatar_cnn"])
def test_channels_last_input(name: str) -> None:
    network, frames = network_of(name, "normal"), observations(name).float()
    inner = network[1:]
    x = network.preprocess(frames)
    torch.testing.assert_close(
        inner(x.contiguous(memory_format=torch.channels_last)), inner(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nature_cnn", {"frame_shape": (10, 10)}, "nature_cnn needs frames of at least 36x36, not 10x10"),
        ("nature_cnn", {"frame_shape": (4,)}, r"nature_cnn needs frames \[H, W\] or \[C, H, W\], not \(4,\)"),
        ("minatar_cnn", {"frame_shape": (4, 2, 10)}, "at least 3x3, not 2x10"),
        ("mlp", {"num_actions": 0}, "num_actions must be positive, not 0"),
        ("mlp", {"stack": -1}, "stack must be positive, not -1"),
        ("mlp", {"frame_shape": ()}, r"frame_shape must be positive, not \(\)"),
        ("mlp", {"scale": float("nan")}, "scale must be a positive number, not nan"),
        ("mlp", {"parameterization": "norml"}, "unknown parameterization 'norml': .*; did you mean normal"),
    ],
)
def test_errors(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_of(name, **changes)


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'nature': .*; did you mean nature_cnn"):
        make_network("nature", parameterization="normal", **SETTINGS["nature_cnn"])


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_rows_are_handed_over_by_the_network_and_its_fast_fold(parameterization: str) -> None:
    network, frames = network_of("nature_cnn", parameterization), observations("nature_cnn", 16)
    data_dependent_init(network, frames)
    values = network.eval()(frames)
    scale_in_first_convolution(network)
    assert network.preprocess.row == 4
    for ours in (network, fold(network, fast=True)):
        assert ours.preprocess(frames).shape == (16, 4, 84, 21, 4)
        assert ours.preprocess(frames[:3]).shape == (3, 4, 84, 84)  # few are faster as they are
        torch.testing.assert_close(ours(frames), values, atol=1e-4, rtol=1e-4)
    plain = fold(network)
    assert plain.preprocess(frames).shape == (16, 4, 84, 84)
    torch.testing.assert_close(plain(frames), values, atol=1e-4, rtol=1e-4)
    before = [parameter.clone() for parameter in network.parameters()]
    data_dependent_init(network, frames)
    for one, other in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("parameterization", PLAIN)
@pytest.mark.parametrize("name", ["nature_cnn", "minatar_cnn"])
def test_a_convolution_scales_what_it_is_handed_unscaled(name: str, parameterization: str) -> None:
    """The same function and gradients, also of what is made of the network: folds, another parameterization."""
    network = network_of(name, parameterization, scale=0.25).double()
    frames = observations(name, 4)
    handed_over = copy.deepcopy(network)
    scale_in_first_convolution(handed_over)
    assert torch.equal(handed_over.preprocess(frames), network.preprocess(frames) * 4)
    for one in (network, handed_over):
        one(frames).square().mean().backward()
    for one, other in zip(network.parameters(), handed_over.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    values = network.eval()(frames)
    fast = fold(handed_over, fast=True)
    for made in (handed_over, fold(handed_over), fast, fold(fast), fold(fast, fast=True)):
        torch.testing.assert_close(made.eval()(frames), values)
        other, _ = reparameterize(copy.deepcopy(made), "weight_norm")
        torch.testing.assert_close(other(frames), values)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("fast", [False, True])
def test_a_part_of_a_network_is_folded_with_the_scale_it_was_handed(parameterization: str, fast: bool) -> None:
    network = network_of("minatar_cnn", parameterization, scale=0.25).eval().double()
    frames = observations("minatar_cnn", 4)
    scale_in_first_convolution(network)
    unscaled = network.preprocess(frames)
    part = fold(network[1:], fast=fast)
    torch.testing.assert_close(part(unscaled), network(frames))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    refill(part, network[1:])
    torch.testing.assert_close(part(unscaled), network(frames))


def test_a_dense_layer_is_handed_what_is_scaled() -> None:
    network, frames = network_of("mlp", scale=0.25), observations("mlp")
    scaled = network.preprocess(frames)
    scale_in_first_convolution(network)
    assert torch.equal(network.preprocess(frames), scaled)


@pytest.mark.parametrize("size", [36, 10])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_come_out_scaled(size: int, dtype: torch.dtype) -> None:
    preprocess = Preprocess((2, size, size), stack=3, scale=1 / 255)
    frames = torch.randint(0, 255, (4, 5, 2, size, size), generator=seeded()).to(dtype)
    before = frames.clone()
    converted = preprocess(frames[:, 1:4])  # as a replay gives it: a part of a longer stack
    expected = frames[:, 1:4].reshape(4, 6, size, size).float() * (1 / 255)
    assert torch.equal(converted, expected)
    assert converted.is_contiguous() or dtype == torch.float32
    assert torch.equal(frames, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(preprocess(frames[:, 1:4]), expected.bfloat16())


@pytest.mark.parametrize("name", ["nature_cnn", "minatar_cnn", "mlp"])
def test_a_network_has_the_log_scale_that_was_asked_for(name: str) -> None:
    network = network_of(name, frame_shape=(36, 36), stack=1, log_scale=3.0)
    assert {weight.log_scale for _, weight in named_normalized(network)} == {3.0}


def test_rows_are_not_handed_to_a_convolution_that_cannot_go_over_them() -> None:
    for without_strides in map(network_of, ("minatar_cnn", "mlp")):
        scale_in_first_convolution(without_strides)
        assert without_strides.preprocess.row == 1
    convolution = Layers("normal", generator=seeded()).conv(2, 3, 4, stride=2, padding=1)
    network = nn.Sequential(Preprocess((8, 8), 2, 1.0), convolution)
    frames = torch.randint(0, 255, (16, 2, 8, 8), dtype=torch.uint8, generator=seeded(1))
    values = network(frames)
    scale_in_first_convolution(network)
    assert network[0].row == 1
    assert torch.equal(network(frames), values)
