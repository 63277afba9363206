"""State dicts of weight_norm layers from and to those of torch's own weight_norm."""

from collections.abc import Mapping

import torch
from torch import Tensor

from wn_rl.nn.weights import unit_norms

# What follows the layer's name and a dot in the keys of g and of v; a bare layer has neither.
NEW_KEYS = "parametrizations.weight.original0", "parametrizations.weight.original1"
OLD_KEYS = "weight_g", "weight_v"


def _layers(state: Mapping[str, Tensor], ending: str) -> list[tuple[str, str]]:
    """(name for messages, the part of its keys before the ending) for each layer that has a key of this ending."""
    prefixes = [key.removesuffix(ending) for key in state if f".{key}".endswith(f".{ending}")]
    return [(prefix.removesuffix(".") or "the layer", prefix) for prefix in prefixes]


def from_torch_weight_norm(state: Mapping[str, Tensor], log_scale: float | None = None) -> dict[str, Tensor]:
    """A state dict of torch's weight_norm, with new or old keys, as one of `weight_norm` layers.

    A layer's keys become `<layer>.weight.v`, `.weight.g` (or `.weight.s`, with v flipped where g < 0) and
    `.shift.bias` (zeros where it had none), those of a bare layer `weight.v` and so on; all others stay.
    ValueError: a norm over other axes than one output unit's (dim other than 0), or g = 0 under a log-scale.
    """
    converted = dict(state)
    found = [(*layer, *endings) for endings in (NEW_KEYS, OLD_KEYS) for layer in _layers(state, endings[0])]
    for layer, prefix, g_ending, v_ending in found:
        g, v = converted.pop(prefix + g_ending), converted.pop(prefix + v_ending)
        if g.shape != unit_norms(v).shape:
            raise ValueError(f"{layer}: its norm is not over one output unit each (weight_norm with dim=0)")
        if log_scale is None:
            converted[f"{prefix}weight.g"] = g
        elif not bool((g != 0).all()):
            raise ValueError(f"{layer}: a log-scale g is positive: it cannot hold a unit with g = 0")
        else:
            v = v * g.sign()
            converted[f"{prefix}weight.s"] = g.abs().log() / log_scale
        converted[f"{prefix}weight.v"] = v
        converted[f"{prefix}shift.bias"] = converted.pop(f"{prefix}bias", v.new_zeros(v.shape[0]))
    return converted


def to_torch_weight_norm(
    state: Mapping[str, Tensor], log_scale: float | None = None, *, old_keys: bool = False
) -> dict[str, Tensor]:
    """A state dict of `weight_norm` layers as one of torch's parametrizations.weight_norm; other keys stay.

    log_scale: that of the layers, where they have one. old_keys: `weight_g` and `weight_v`, which the
    deprecated torch.nn.utils.weight_norm saves. ValueError: a layer with running statistics (fold the module
    instead), or log-scale keys without log_scale.
    """
    converted = dict(state)
    g_ending, v_ending = OLD_KEYS if old_keys else NEW_KEYS
    for layer, prefix in _layers(state, "weight.v"):
        s_key, g_key = f"{prefix}weight.s", f"{prefix}weight.g"
        if not (s_key in state or g_key in state):
            continue
        if f"{prefix}shift.running_mean" in state:
            raise ValueError(f"{layer}: torch's weight_norm has no running mean; fold the module instead")
        if g_key in state:
            g = converted.pop(g_key)
        elif log_scale is None:
            raise ValueError(f"{layer}: it has a log-scale g; say which log_scale")
        else:
            g = torch.exp(log_scale * converted.pop(s_key))
        converted[prefix + g_ending] = g
        converted[prefix + v_ending] = converted.pop(f"{prefix}weight.v")
        converted[f"{prefix}bias"] = converted.pop(f"{prefix}shift.bias")
    return converted
