"""Starting values: the paper's data-dependent initialization (section 3), and torch's own.

Both work in place, so that optimizers and other views keep their tensors.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from wn_rl.nn.layers import Layer, layers_of, named_layers
from wn_rl.nn.shifts import feature_statistics_axes
from wn_rl.nn.weights import unit_norms

DEGENERATE = 1e-4  # a unit whose standard deviation is below this part of its root mean square is constant


def _layers(network: nn.Module) -> list[Layer]:
    layers = layers_of(network)
    if not layers:
        raise ValueError("the network has no layer of wn_rl.nn to initialize: reparameterize it first")
    return layers


def _standardize_outputs(layer: Layer, inputs: tuple[Tensor, ...]) -> None:
    """Set g and b of one layer from its input, eq. 4-5; before its forward: the next layer sees the result.

    The statistics are those of v.x, not of v.x / |v|: with scale = 1 / sigma[v.x], w = scale * v is
    g v / |v| with g = 1 / sigma[t]. For a constant unit sigma[t] is taken as 1, hence sigma[v.x] as |v|.
    """
    v = layer.weight.v
    if v.numel() == 0:
        return
    norms = unit_norms(v).view(-1)
    if not bool((norms > 0).all()):
        raise ValueError("a unit of v is zero: it has no direction to initialize")
    products = layer.operate(inputs[0], v, None)
    axes = feature_statistics_axes(products, layer.feature_axis)
    variance, mean = torch.var_mean(products, axes, correction=0)
    root_mean_square = torch.sqrt(variance + mean.square())
    if not bool(torch.isfinite(root_mean_square).all()):
        raise ValueError("the batch gives values that are not finite: it cannot initialize the layers")
    deviation = variance.sqrt()
    deviation = torch.where(deviation <= DEGENERATE * root_mean_square, norms, deviation)
    layer.weight.set_multiple(layer.shift.standardize(mean, variance, 1 / deviation))


@torch.no_grad()
def data_dependent_init(network: nn.Module, batch: Tensor) -> None:
    """One pass of the batch [B, ...] that gives every pre-activation mean 0 and variance 1 on it (eq. 4-5).

    v keeps its direction; g, b and the running statistics are set, in place, each layer before the next one
    sees its output, the output layer included. From equal draws every parameterization then computes the same
    function on the batch, in eval mode and in training mode. The modes are left as they were.
    ValueError: fewer than two examples, no layer of ours, a unit with v = 0, values that are not finite, or layers
    that the pass did not call exactly once; then those before are set.
    """
    layers = _layers(network)
    if batch.shape[0] < 2:
        raise ValueError(f"data-dependent initialization needs two examples or more, got {batch.shape[0]}")
    modes = [(module, module.training) for module in network.modules()]
    calls: Counter[Layer] = Counter()

    def initialize(layer: Layer, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        calls[layer] += 1
        _standardize_outputs(layer, (*inputs, *named.values()))

    handles: list[Any] = [layer.register_forward_pre_hook(initialize, with_kwargs=True) for layer in layers]
    try:
        network.eval()  # the pass itself then uses the statistics just set, and gathers none
        network(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    if wrong := [f"{name} {calls[layer]} times" for name, layer in named_layers(network) if calls[layer] != 1]:
        raise ValueError(f"the pass must call each layer once, but it called {', '.join(wrong)}")


@torch.no_grad()
def default_init(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """torch's own start of nn.Linear and nn.Conv2d, w and b ~ U(+-1 / sqrt(fan in)).

    In place, for any parameterization: g = |v|, running means 0 and variances 1. From equal generators all
    compute the same function in eval mode. ValueError: no layer of ours.
    """
    for layer in _layers(network):
        v, bias = layer.weight.v, layer.shift.bias
        if v.numel() == 0:
            continue
        limit = v[0].numel() ** -0.5
        for parameter in (v, bias):
            device = parameter.device if generator is None else generator.device
            drawn = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            parameter.copy_(drawn.uniform_(-limit, limit, generator=generator))
        start, one = bias.clone(), torch.ones_like(bias)
        layer.weight.set_multiple(layer.shift.standardize(torch.zeros_like(bias), one, one))
        bias.copy_(start)
