"""Our layers into any torch network, and out of it again.

`reparameterize` puts them in, `fold` makes plain torch layers of them, `refill` brings a fold up to date.
All keep the function in eval mode.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from wn_rl.nn.layers import Conv, Dense, Layer, Layers
from wn_rl.nn.networks import Preprocess
from wn_rl.nn.products import FastConv2d, FastLinear, ScaledLinear, scaling_outputs_is_faster
from wn_rl.nn.weights import Normalized, unit_norms

CONVERTED = (nn.Linear, FastLinear, nn.Conv2d, FastConv2d)


def _replace(module: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The module with every submodule m for which convert(m) is a module replaced by it, in place.

    A module that stands in several places is converted once.
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


def _shared_parameters(module: nn.Module) -> set[int]:
    """Ids of the parameters that belong to more than one module."""
    owned = Counter(id(p) for child in module.modules() for p in child._parameters.values() if p is not None)
    return {identity for identity, owners in owned.items() if owners > 1}


def _weights_read_by_parents(module: nn.Module) -> set[int]:
    """Ids of the layers whose weights a parent reads itself, without calling them."""
    encoders = [child for child in module.modules() if isinstance(child, nn.TransformerEncoderLayer)]
    return {id(layer) for encoder in encoders for layer in (encoder.linear1, encoder.linear2)}


def _parts_of_layers(module: nn.Module) -> set[int]:
    """Ids of the modules that only serve the layer they stand in: weights, shifts, parametrizations."""
    wholes = (child for child in module.modules() if isinstance(child, Layer) or is_parametrized(child))
    return {id(part) for whole in wholes for part in whole.modules() if part is not whole}


def _reason_to_leave(child: nn.Module, shared: set[int], read_by_parents: set[int]) -> str | None:
    """Why a module with weights stays as it is; None for one that is converted or has nothing to convert."""
    matrices = [p for p in child._parameters.values() if p is not None and _is_matrix(p)]
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


def _is_matrix(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.dim() >= 2


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
    layer = (
        Conv(weight, shift, plain.stride, plain.padding, plain.dilation, plain.groups)
        if isinstance(plain, nn.Conv2d)
        else Dense(weight, shift)
    )
    if isinstance(layer, Conv) and isinstance(plain, FastConv2d):
        layer.input_scale = plain.input_scale
    return layer.requires_grad_(plain.weight.requires_grad).train(plain.training)


def reparameterize(
    module: nn.Module,
    to: str,
    log_scale: float | None = None,
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, list[str]]:
    """Put every nn.Linear and nn.Conv2d (and layer of ours) into the given parameterization.

    Returns the module and what is left. It is changed in place, and returned since it may itself be the layer
    to replace. Its function in eval mode stays. A layer without a bias gets one, at zero. A weight row of
    zeros draws its v from the generator and takes g = 0. What is left are lines "name: reason" for all other
    modules that own weights (transposed convolutions, embeddings, shared weights, ...).
    Build optimizers afterwards: the parameters are new. On a CPU, large dense layers have first derivatives
    alone from then on, see `Layers`. ValueError: an unknown parameterization, a log_scale that does not belong
    to it, or a row of zeros under a log-scale g; then the module is unchanged.
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
    if fast and share and _scales_outputs(layer):
        return _to_scaled(layer)
    weight, bias = _plain_values(layer, fast)
    plain: nn.Linear | nn.Conv2d
    if isinstance(layer, Conv):
        names = "stride", "padding", "dilation", "groups"
        geometry: dict[str, Any] = {name: getattr(layer, name) for name in names}
        inputs, kernel = weight.shape[1] * layer.groups, (weight.shape[2], weight.shape[3])
        # On the meta device nothing is drawn: the weights are replaced below.
        convolve = FastConv2d if fast else nn.Conv2d
        plain = convolve(inputs, weight.shape[0], kernel, **geometry, device="meta")
        if isinstance(plain, FastConv2d):
            plain.input_scale = layer.input_scale
    else:
        linear = FastLinear if fast else nn.Linear
        plain = linear(weight.shape[1], weight.shape[0], device="meta")
    _set_values(plain, layer, share, weight=weight, bias=bias)
    return plain.train(layer.training)


def _set_values(plain: nn.Module, layer: Layer, share: bool, **values: Tensor) -> None:
    trainable = layer.weight.v.requires_grad
    for name, value in values.items():
        is_shared = share and isinstance(value, nn.Parameter)
        setattr(plain, name, value if is_shared else nn.Parameter(value.clone(), requires_grad=trainable))


def _scales_outputs(layer: Layer) -> bool:
    is_normalized_dense = isinstance(layer, Dense) and type(layer.weight) is Normalized
    return is_normalized_dense and scaling_outputs_is_faster(layer.weight.v)


def _to_scaled(layer: Layer) -> ScaledLinear:
    """A plain layer that shares v with a normalized dense one."""
    outputs, inputs = layer.weight.v.shape
    plain = ScaledLinear(inputs, outputs, device="meta")
    plain.scale, bias = layer.folded_scale()
    _set_values(plain, layer, share=True, weight=layer.weight.v, bias=bias)
    return plain.train(layer.training)


def _plain_values(layer: Layer, fast: bool, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias for `_to_plain`: the weight of torch's own convolution takes the scale of the input."""
    weight, bias = layer.folded(out)
    if isinstance(layer, Conv) and layer.input_scale != 1 and not fast:
        weight = weight * layer.input_scale
    return weight, bias


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


def _fold_pairs(folded: nn.Module, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """(tensor of the fold, its value in the module) for every parameter and buffer."""
    if isinstance(module, Layer) and isinstance(folded, ScaledLinear):
        yield from zip((folded.scale, folded.bias), module.folded_scale(), strict=True)
        return
    if isinstance(module, Layer):
        fast = isinstance(folded, FastLinear | FastConv2d)
        weight, bias = _plain_values(module, fast, out=folded._parameters["weight"])
        yield folded._parameters["weight"], weight  # type: ignore[misc]
        yield folded._parameters["bias"], bias  # type: ignore[misc]
        return
    for target, source in ((folded._parameters, module._parameters), (folded._buffers, module._buffers)):
        for name, value in source.items():
            if value is not None:
                yield target[name], value  # type: ignore[misc]
    for name, child in module._modules.items():
        if child is not None:
            yield from _fold_pairs(folded._modules[name], child)  # type: ignore[arg-type]


@torch.no_grad()
def refill(folded: nn.Module, module: nn.Module) -> None:
    """Write the module's present eval-mode weights into a fold of it, in place.

    Nothing waits for the device and the fold keeps its tensors, so a CUDA graph may hold both this call and
    the fold's forward pass.
    """
    pairs = [(to, value) for to, value in _fold_pairs(folded, module) if to is not value and value.numel() > 0]
    if pairs:
        targets, values = zip(*pairs, strict=True)
        torch._foreach_copy_(targets, values)


def shares_all_tensors(folded: nn.Module, module: nn.Module) -> bool:
    """Whether a fold has no tensor of its own (see `fold`), so that `refill` has nothing to do."""
    of_module = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    of_fold = (*folded.parameters(), *folded.buffers())
    return all(id(tensor) in of_module or tensor.numel() == 0 for tensor in of_fold)
