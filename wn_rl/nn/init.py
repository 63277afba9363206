"""Starting values: the paper's data-dependent initialization (section 3), and torch's own.

Both work in place, so that optimizers and other views keep their tensors.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from wn_rl.nn.layers import Layer, layers_of, named_layers
from wn_rl.nn.shifts import LayerNorm, feature_statistics_axes
from wn_rl.nn.weights import unit_norms

DEGENERATE = 1e-4  # a unit whose standard deviation is below this part of its root mean square is constant


def _layers(network: nn.Module) -> list[Layer]:
    layers = layers_of(network)
    if not layers:
        raise ValueError("the network has no layer of wn_rl.nn to initialize: reparameterize it first")
    return layers


def _standardize_layer(layer: Layer, inputs: tuple[Tensor, ...], target: float) -> None:
    """Set g and b of one layer from its input, eq. 4-5; before its forward: the next layer sees the result.

    target: the standard deviation that its outputs get. The statistics are those of v.x, not of v.x / |v|: with
    scale = target / sigma[v.x], w = scale * v is g v / |v| with g = target / sigma[t]. For a constant unit
    sigma[t] is taken as 1, hence sigma[v.x] as |v|.
    """
    v = layer.weight.v
    if v.numel() == 0:
        return
    norms = unit_norms(v).view(-1)
    if not bool((norms > 0).all()):
        raise ValueError("a unit of v is zero: it has no direction to initialize")
    products = layer.operate(inputs[0], v, None)
    if isinstance(layer.shift, LayerNorm):
        products, norms = layer.shift.normalize(products, layer.feature_axis), torch.ones_like(norms)
    axes = feature_statistics_axes(products, layer.feature_axis)
    variance, mean = torch.var_mean(products, axes, correction=0)
    root_mean_square = torch.sqrt(variance + mean.square())
    if not bool(torch.isfinite(root_mean_square).all()):
        raise ValueError("the batch gives values that are not finite: it cannot initialize the layers")
    deviation = variance.sqrt()
    deviation = torch.where(deviation <= DEGENERATE * root_mean_square, norms, deviation)
    layer.weight.set_multiple(layer.shift.standardize(mean, variance, target / deviation))


def data_dependent_init(
    network: nn.Module, batch: Tensor, output_scale: float = 1.0, *, with_noise: bool = False
) -> None:
    """One pass of the batch [B, ...] that gives every pre-activation mean 0 and variance 1 on it (eq. 4-5).

    v keeps its direction; g, b and the running statistics are set, in place, each layer before the next one
    sees its output, the output layer included. From equal draws every parameterization without layer norm then
    computes the same function on the batch, in eval mode and in training mode. The modes are left as they were.

    output_scale: the standard deviation of the last layer's outputs. Q-learning wants less than the paper's 1,
    since a maximum over values of unit variance is far from the returns (docs/weight_normalization.md).
    with_noise: leave other modules in their mode, so that dropout and noise act in the pass as in training. The
    authors' code does so. In eval mode a dropout of 0.5 gives the next layer a deviation of 1.5 in training.

    Raises:
        ValueError: fewer than two examples, no layer of ours, a unit with v = 0, values that are not finite, or
            layers that the pass did not call exactly once; then those before are set.
    """
    *hidden, output = _layers(network)
    _standardize(dict.fromkeys(hidden, 1.0) | {output: output_scale}, network, batch, with_noise)


def standardize_outputs(network: nn.Module, batch: Tensor, output_scale: float) -> None:
    """As `data_dependent_init`, but for the last layer alone: the others stay as they are."""
    _standardize({_layers(network)[-1]: output_scale}, network, batch)


@torch.no_grad()
def _standardize(targets: dict[Layer, float], network: nn.Module, batch: Tensor, with_noise: bool = False) -> None:
    """Give the outputs of these layers mean 0 and these standard deviations on the batch."""
    if batch.shape[0] < 2:
        raise ValueError(f"data-dependent initialization needs two examples or more, got {batch.shape[0]}")
    modes = [(module, module.training) for module in network.modules()]
    calls: Counter[Layer] = Counter()

    def standardize(layer: Layer, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        calls[layer] += 1
        _standardize_layer(layer, (*inputs, *named.values()), targets[layer])

    handles: list[Any] = [layer.register_forward_pre_hook(standardize, with_kwargs=True) for layer in targets]
    try:
        for module in _layers(network) if with_noise else [network]:
            module.eval()  # the pass itself then uses the statistics just set, and gathers none
        network(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    names = {layer: name for name, layer in named_layers(network)}
    if wrong := [f"{names[layer]} {calls[layer]} times" for layer in targets if calls[layer] != 1]:
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
