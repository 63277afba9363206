"""Our layers into any torch network, and out of it again.

`reparameterize` puts them in, `fold` makes plain torch layers of them, `refill` brings a fold up to date.
All keep the function in eval mode.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from wn_rl.nn.layers import Conv, Dense, Layer, Layers
from wn_rl.nn.networks import Preprocess
from wn_rl.nn.private_torch import foreach_copy_, foreach_lerp_
from wn_rl.nn.products import FastConv2d, FastLinear, ScaledLinear, scaling_outputs_is_faster
from wn_rl.nn.weights import Normalized, unit_norms

CONVERTED = (nn.Linear, FastLinear, nn.Conv2d, FastConv2d)


def _replace(module: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The module with every submodule m for which convert(m) is a module replaced by it, in place.

    A module that occurs in several places is converted once.
    """
    replacements: dict[int, nn.Module] = {}

    def visit(current: nn.Module) -> nn.Module:
        if id(current) not in replacements:
            replacement = convert(current)
            replacements[id(current)] = current if replacement is None else replacement
            if replacement is None:
                for name, child in list(current._modules.items()):
                    if child is not None:
                        current._modules[name] = visit(child)
        return replacements[id(current)]

    return visit(module)


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module._parameters.values() if parameter is not None]


def _shared_parameters(module: nn.Module) -> set[int]:
    """Ids of the parameters that belong to more than one module."""
    owned = Counter(id(parameter) for child in module.modules() for parameter in _own_parameters(child))
    return {identity for identity, owners in owned.items() if owners > 1}


def _weights_read_by_parents(module: nn.Module) -> set[int]:
    """Ids of the layers whose weights a parent reads itself, without calling them."""
    encoders = [child for child in module.modules() if isinstance(child, nn.TransformerEncoderLayer)]
    return {id(layer) for encoder in encoders for layer in (encoder.linear1, encoder.linear2)}


def _parts_of_layers(module: nn.Module) -> set[int]:
    """Ids of the modules that only serve the layer they are in: weights, shifts, parametrizations."""
    wholes = (child for child in module.modules() if isinstance(child, Layer) or is_parametrized(child))
    return {id(part) for whole in wholes for part in whole.modules() if part is not whole}


def _reason_to_leave(child: nn.Module, shared: set[int], read_by_parents: set[int]) -> str | None:
    """Why a module with weights stays as it is; None for one that is converted or has nothing to convert."""
    matrices = [p for p in _own_parameters(child) if isinstance(p, UninitializedParameter) or p.dim() >= 2]
    parametrized = is_parametrized(child)
    if isinstance(child, Layer) or not (matrices or parametrized):
        return None
    if parametrized:
        return "parametrized: remove_parametrizations first, or convert its state dict"
    if type(child) not in CONVERTED:
        return "not an nn.Linear or nn.Conv2d"
    if any(id(matrix) in shared for matrix in matrices):
        return "its weight is shared with another module"
    if id(child) in read_by_parents:
        return "its parent reads the weight without calling the layer"
    if child._forward_pre_hooks or child._forward_hooks or child._backward_hooks:
        return "it carries hooks"
    if isinstance(child, nn.Conv2d) and child.padding_mode != "zeros":
        return f"padding_mode {child.padding_mode!r}"
    return None


def _to_layer(plain: nn.Linear | nn.Conv2d, layers: Layers) -> Layer:
    """A layer with the plain one's eval-mode function, device, dtype and requires_grad."""
    w = plain.weight.detach().clone(memory_format=torch.contiguous_format)
    norms = unit_norms(w)
    zero = norms.view(-1) == 0
    if layers.normalized and bool(zero.any()):
        w[zero] = layers.draw(tuple(w[zero].shape)).to(w)  # any direction: g = 0 hides it
    bias = w.new_zeros(w.shape[0]) if plain.bias is None else plain.bias.detach().clone()
    weight, shift = layers.make_weight(w), layers.make_shift(bias)
    if isinstance(weight, Normalized):
        weight.set_g(norms)
    layer: Layer = Dense(weight, shift)
    if isinstance(plain, nn.Conv2d):
        layer = Conv(weight, shift, plain.stride, plain.padding, plain.dilation, plain.groups)
        layer.input_scale = getattr(plain, "input_scale", 1.0)
    return layer.requires_grad_(plain.weight.requires_grad).train(plain.training)


def reparameterize(
    module: nn.Module, to: str, log_scale: float | None = None, generator: torch.Generator | None = None
) -> tuple[nn.Module, list[str]]:
    """Put every nn.Linear and nn.Conv2d (and layer of ours) into the given parameterization.

    Returns the module and what is left. It is changed in place, and returned since it may itself be the layer
    to replace. Its function in eval mode stays. A layer without a bias gets one, at zero. A weight row of
    zeros draws its v from the generator and takes g = 0. What is left are lines "name: reason" for all other
    modules that own weights (transposed convolutions, embeddings, shared weights, ...).
    Build optimizers afterwards: the parameters are new. On a CPU, large dense layers support only first
    derivatives from then on, see `Layers`. ValueError: an unknown parameterization, a log_scale that does not
    belong to it, or a row of zeros under a log-scale g; then the module is unchanged.
    """
    layers = Layers(to, log_scale, generator)
    shared, read_by_parents = _shared_parameters(module), _weights_read_by_parents(module)
    parts = _parts_of_layers(module)
    left: list[str] = []
    converted: dict[int, nn.Module] = {}
    for name, child in module.named_modules():
        if id(child) in parts:
            continue
        reason = _reason_to_leave(child, shared, read_by_parents)
        if reason is not None:
            left.append(f"{name or type(child).__name__}: {reason}")
        elif isinstance(child, Layer) or type(child) in CONVERTED:
            # A fast one, which knows the scale of its input where that was handed over.
            plain = _to_plain(child, fast=True) if isinstance(child, Layer) else child
            try:
                converted[id(child)] = _to_layer(plain, layers)
            except ValueError as error:
                raise ValueError(f"{name or type(child).__name__}: {error}") from None
    return _replace(module, lambda child: converted.get(id(child))), left


@torch.no_grad()
def _to_plain(layer: Layer, fast: bool = False, share: bool = False) -> nn.Linear | nn.Conv2d:
    """An nn.Linear or nn.Conv2d (fast: a subclass) with the layer's eval-mode function; see `fold` for share."""
    v = layer.weight.v
    plain: nn.Linear | nn.Conv2d
    # On the meta device nothing is drawn: the weights are replaced below.
    if isinstance(layer, Conv):
        convolve: Any = FastConv2d if fast else nn.Conv2d
        plain = convolve(v.shape[1] * layer.geometry.groups, len(v), v.shape[2:], *layer.geometry, device="meta")
        if isinstance(plain, FastConv2d):
            plain.input_scale = layer.input_scale
    else:
        scales_outputs = fast and share and type(layer.weight) is Normalized and scaling_outputs_is_faster(v)
        linear = ScaledLinear if scales_outputs else FastLinear if fast else nn.Linear
        plain = linear(v.shape[1], len(v), device="meta")
    for name, value in _plain_values(layer, plain).items():
        if name == "scale" or (share and isinstance(value, nn.Parameter)):
            setattr(plain, name, value)
        else:
            setattr(plain, name, nn.Parameter(value.clone(), requires_grad=v.requires_grad))
    return plain.train(layer.training)


def _plain_values(layer: Layer, plain: nn.Module, out: Tensor | None = None) -> dict[str, Tensor]:
    """The values of a plain module's tensors, by name. out: where to compute the weight, if that spares a copy."""
    if isinstance(plain, ScaledLinear):
        assert isinstance(layer.weight, Normalized)
        scale, bias = layer.shift.fold(layer.weight.scale())
        return {"weight": layer.weight.v, "scale": scale, "bias": bias}
    weight, bias = layer.folded(out)
    if isinstance(layer, Conv) and layer.input_scale != 1 and not isinstance(plain, FastConv2d):
        weight = weight * layer.input_scale
    return {"weight": weight, "bias": bias}


def fold(module: nn.Module, fast: bool = False, share: bool = False) -> nn.Module:
    """A copy, in eval mode and with its own tensors, where our layers are plain nn.Linear and nn.Conv2d.

    It computes the module's eval-mode function: weights, norms and running statistics become one weight and
    one bias per layer. Its state-dict keys are `<layer>.weight` and `<layer>.bias`.
    fast: make layers that compute as ours do, faster than torch's (`FastLinear`, `FastConv2d`).
    share: the module's parameters themselves where they serve as they are (weights of normal layers, biases), so
    that the fold changes with them, and `refill` brings the rest up to date. With fast, large normalized dense
    layers on a CPU share v too, and have a `scale` (`ScaledLinear`).
    """
    kept = {id(parameter): parameter for parameter in module.parameters()} if share else {}
    folded = _replace(
        copy.deepcopy(module, kept),
        lambda child: _to_plain(child, fast, share) if isinstance(child, Layer) else None,
    )
    for child in folded.modules():
        if isinstance(child, Preprocess) and not fast:
            child.row = 1  # torch's convolutions take images
    return folded.eval()


def _fold_pairs(folded: Any, module: nn.Module, *, in_place: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(tensor of the fold, its value in the module) for every parameter and buffer.

    in_place: the fold's own tensor may be the value already.
    """
    if isinstance(module, Layer):
        for name, value in _plain_values(module, folded, out=folded.weight if in_place else None).items():
            yield getattr(folded, name), value
        return
    own: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    yield from ((getattr(folded, name), value) for name, value in own.items() if value is not None)
    for name, child in module._modules.items():
        if child is not None:
            yield from _fold_pairs(folded._modules[name], child, in_place=in_place)


@torch.no_grad()
def refill(folded: nn.Module, module: nn.Module, share: float = 1.0) -> None:
    """Write the module's present eval-mode weights into a fold of it, in place.

    share: below 1, move the fold's weights by this share of the way to the module's.

    Nothing waits for the device and the fold keeps its tensors, so a CUDA graph may hold both this call and
    the fold's forward pass.
    """
    pairs = _fold_pairs(folded, module, in_place=share == 1)
    _move(((to, value) for to, value in pairs if to is not value and value.numel() > 0), share)


@torch.no_grad()
def move_toward(average: nn.Module, module: nn.Module, share: float) -> None:
    """Move the parameters and buffers of a copy of a module by a share of the way to the module's, in place."""
    _move(zip(average.state_dict().values(), module.state_dict().values(), strict=True), share)


def _move(pairs: Iterable[tuple[Tensor, Tensor]], share: float) -> None:
    """Move each first tensor by a share of the way to the second; integers, which count batches, are copied."""
    copied, moved = list[tuple[Tensor, Tensor]](), list[tuple[Tensor, Tensor]]()
    for pair in pairs:
        (copied if share == 1 or not pair[0].is_floating_point() else moved).append(pair)
    if copied:
        foreach_copy_(*zip(*copied, strict=True))
    if moved:
        foreach_lerp_(*zip(*moved, strict=True), share)


def shares_all_tensors(folded: nn.Module, module: nn.Module) -> bool:
    """Whether a fold has no tensor of its own (see `fold`), so that `refill` has nothing to do."""
    of_module = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    of_fold = (*folded.parameters(), *folded.buffers())
    return all(id(tensor) in of_module or tensor.numel() == 0 for tensor in of_fold)
