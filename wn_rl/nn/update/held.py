"""Weights that are computed once for an update and held: leaves for autograd, refilled when v or g has changed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wn_rl.nn.layers import layers_of, named_layers
from wn_rl.nn.weights import Direct, FixedGain, Normalized, Projected, SpectralNorm


@torch.no_grad()
def hold_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """From now on, take the weights of training mode from tensors `held` [out, in, ...] of this type.

    They are leaves: a loss has gradients for them, not for v and g. Whoever changes v or g must refill them
    (`refill_held`). Weights that are v itself, in this type, need no such tensor. Those of a user's own class are
    not held, since only autograd knows what a gradient of w means for their parameters.
    """
    for layer in layers_of(module):
        kind, v = type(layer.weight), layer.weight.v
        is_v = kind in (Direct, Projected)
        holds = v.dtype != dtype if is_v else kind in (FixedGain, Normalized, SpectralNorm)
        layer.held = torch.empty_like(v, dtype=dtype).requires_grad_() if holds else None
    refill_held(module)


def held_weights(module: nn.Module) -> dict[str, Tensor]:
    """What the layers hold, by the layer's name: the tensors themselves, without their gradients."""
    return {name: layer.held.detach() for name, layer in named_layers(module) if layer.held is not None}


@torch.no_grad()
def refill_held(module: nn.Module, values: Mapping[str, Tensor] | None = None) -> None:
    """Bring what `hold_weights` made up to date, in place; where values has it to the last bit, from there."""
    for name, layer in named_layers(module):
        if layer.held is not None:
            known = (values or {}).get(name)
            layer.held.copy_(layer.weight() if known is None else known)
