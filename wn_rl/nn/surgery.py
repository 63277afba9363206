"""Our layers into any torch network, and out of it again.

`reparameterize` puts them in, `fold` makes plain torch layers of them, `refill` brings a fold up to date.
All keep the function in eval mode. A layer that cannot be replaced without a loss is left as it is, and named.
"""

import copy
import gc
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from wn_rl.nn.layers import Conv, Dense, Layer, Layers, layers_of, named_layers
from wn_rl.nn.networks import Preprocess
from wn_rl.nn.private_torch import carries_hooks, foreach_copy_, foreach_lerp_, tree_leaves
from wn_rl.nn.products import FastConv2d, FastLinear, ScaledLinear, scaling_outputs_is_faster
from wn_rl.nn.shifts import LayerNorm
from wn_rl.nn.weights import Normalized, unit_norms

CONVERTED = (nn.Linear, FastLinear, nn.Conv2d, FastConv2d)
OF_LAYERS_ALONE = ("held", "geometry", "input_scale")  # attributes that mean nothing to a plain layer

Skip = str | Iterable[str] | Callable[[str, nn.Module], bool]


def _become(module: nn.Module, other: nn.Module) -> None:
    """Make a module the other one, except for its hooks and for attributes that somebody has added.

    It stays the same object: parents, lists and handles of hooks have what stands there.
    """
    kept = {name: value for name, value in vars(module).items() if name not in OF_LAYERS_ALONE}
    given = {name: value for name, value in vars(other).items() if "hook" not in name}
    module.__class__, module.__dict__ = type(other), kept | given


def _is_whole(module: Any) -> bool:
    """Whether the modules in it are parts of it: weights, shifts, parametrizations."""
    return isinstance(module, Layer) or is_parametrized(module)


def _storage(tensor: Tensor) -> int:
    """Where the tensor's elements are; 0 if it has none."""
    has_storage = tensor.layout == torch.strided and not isinstance(tensor, UninitializedParameter)
    return tensor.untyped_storage().data_ptr() if has_storage else 0


def _shared_storages(network: nn.Module) -> set[int]:
    """Storages that more than one module has, in its attributes or in Python's containers there."""
    owners: dict[int, set[int]] = defaultdict(set)
    waiting: list[tuple[Any, nn.Module]] = [(network, network)]
    seen = set()
    while waiting:
        held, whole = waiting.pop()
        if isinstance(held, Tensor):
            owners[_storage(held)].add(id(whole))
        elif isinstance(held, nn.Module | list | tuple | set | dict) and (id(held), id(whole)) not in seen:
            seen.add((id(held), id(whole)))
            if isinstance(held, nn.Module):
                whole, held = whole if _is_whole(whole) else held, vars(held)
            waiting += [(each, whole) for each in gc.get_referents(held)]
    return {storage for storage, wholes in owners.items() if storage and len(wholes) > 1}


def _has_weights(module: nn.Module) -> bool:
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    is_quantized = inspect.ismethod(getattr(module, "weight", None))
    return is_quantized or any(isinstance(p, UninitializedParameter) or p.dim() >= 2 for p in own)


def _reason_to_leave(child: nn.Module, shared: set[int], *, folds: bool) -> str | None:
    """Why a module with weights stays as it is, or None. folds: own hooks and the meta device are no reason."""
    if any(map(is_parametrized, child.modules())):
        return "parametrized: remove_parametrizations first, or convert its state dict"
    is_ours = isinstance(child, Layer)
    if not is_ours and type(child) not in CONVERTED:
        return "not an nn.Linear or nn.Conv2d"
    if {*child._parameters, *child._buffers, *child._modules} != {"weight", "shift" if is_ours else "bias"}:
        return "it has more in it than a plain layer"
    for name, parameter in child.named_parameters():
        if _storage(parameter) in shared:
            return f"its {name} is shared with another module"
        is_ordinary = type(parameter) is nn.Parameter and parameter.is_floating_point()
        if not is_ordinary or (parameter.is_meta and not folds):
            return f"its {name} is on the meta device, or is not an ordinary tensor of floating-point numbers"
    if is_ours and isinstance(child.shift, LayerNorm):
        return "its layer norm depends on the example"
    if "forward" in vars(child):
        return "its forward is patched"
    attributes = [item for module in list(child.modules())[folds:] for item in vars(module).items()]
    if any(map(carries_hooks, child.parameters())) or any(value for name, value in attributes if "hooks" in name):
        return "it carries hooks"
    if isinstance(child, nn.Conv2d) and child.padding_mode != "zeros":
        return f"padding_mode {child.padding_mode!r}"
    return None


def _to_layer(child: Any, layers: Layers) -> Layer:
    """A layer with the eval-mode function, device, dtype and requires_grad of a plain one or of one of ours."""
    # From a fast one, which knows the scale of its input where that was handed over.
    plain = _to_plain(child, fast=True) if isinstance(child, Layer) else child
    w = plain.weight.detach().clone(memory_format=torch.contiguous_format)
    norms = unit_norms(w)
    zero = norms.view(-1) == 0
    if layers.normalized and bool(zero.any()):
        w[zero] = layers.draw(tuple(w[zero].shape)).to(w)  # any direction: g = 0 hides it
    bias = w.new_zeros(w.shape[0]) if plain.bias is None else plain.bias.detach().clone()
    weight, shift = layers.parts(w, bias)
    if isinstance(weight, Normalized):
        weight.set_g(norms)
    layer: Layer = Dense(weight, shift)
    if isinstance(plain, nn.Conv2d):
        layer = Conv(weight, shift, plain.stride, plain.padding, plain.dilation, plain.groups)
        layer.input_scale = getattr(plain, "input_scale", 1.0)
    learns = {name: parameter.requires_grad for name, parameter in child.named_parameters()}
    for name, parameter in layer.named_parameters():
        known = learns.get(name, learns.get(name.removeprefix("shift.")))
        parameter.requires_grad_(plain.weight.requires_grad if known is None else known)
    return layer.train(plain.training)


def _skipped(network: nn.Module, skip: Skip) -> set[int]:
    """Ids of the modules to skip. ValueError: the network has no module of a name."""
    named = list(network.named_modules(remove_duplicate=False))
    if callable(skip):
        return {id(module) for name, module in named if skip(name, module)}
    names = {skip} if isinstance(skip, str) else set(skip)
    if unknown := names - {name for name, _ in named}:
        raise ValueError(f"the network has no module {', '.join(sorted(unknown))}")
    return {id(part) for name, module in named if name in names for part in module.modules()}


def _outputs(network: nn.Module, example: Any) -> list[Tensor]:
    """The tensors that the network gives for the example in eval mode, with the same random numbers each time."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            given = network.eval()(*copy.deepcopy(example if isinstance(example, tuple) else (example,)))
        return [leaf.clone() for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    finally:
        for module, training in modes:
            module.training = training


def _failure(network: nn.Module, example: Any, expected: list[Tensor]) -> str | None:
    """Why the network does not give what is expected for the example, to rounding."""
    try:
        for given, other in zip(_outputs(network, example), expected, strict=True):
            rounding = torch.finfo(other.dtype).eps ** 0.5 if other.is_floating_point() else 0.0
            size = float(other.double().nan_to_num(0, 0, 0).norm()) / max(other.numel(), 1) ** 0.5
            torch.testing.assert_close(given, other, rtol=rounding, atol=rounding * size, equal_nan=True)
    except Exception as error:
        return f"the example fails with it: {error}".partition("\n")[0]
    return None


def reparameterize(
    module: nn.Module,
    to: str,
    log_scale: float | None = None,
    generator: torch.Generator | None = None,
    *,
    skip: Skip = (),
    example: Any = None,
) -> tuple[nn.Module, list[str]]:
    """Put every nn.Linear and nn.Conv2d (and layer of ours) into the given parameterization.

    Returns the module and what is left. It is changed in place; layers stay the same objects. Its function in eval
    mode stays (layer norm alone changes it), and so does each parameter's requires_grad. A layer without a bias
    gets one, at zero. A weight row of zeros draws its v from the generator and takes g = 0. What is left are lines
    "name: reason" for all other modules that own weights (embeddings, shared weights, layers with hooks, ...).

    skip: names of modules to leave with all that is in them, or a function of a name and a module.
    example: an input, or a tuple of arguments, for one pass per layer in eval mode. A layer is left too if the
    module then raises an error or has other outputs.

    Weights that are projected or spectral have an `after_update`, to be called after each step of an optimizer.
    Build optimizers afterwards: the parameters are new. On a CPU, large dense layers support only first
    derivatives from then on, see `Layers`. ValueError: an unknown parameterization, a log_scale that does not
    belong to it, a row of zeros under a log-scale g, or an unknown name to skip; then the module is unchanged.
    """
    layers = Layers(to, log_scale, generator)
    skipped, shared = _skipped(module, skip), _shared_storages(module)
    parts = {id(part) for whole in filter(_is_whole, module.modules()) for part in list(whole.modules())[1:]}
    expected = [] if example is None else _outputs(module, example)
    left, plan = [], []
    for path, child in module.named_modules():
        if id(child) in parts or not (_is_whole(child) or _has_weights(child)):
            continue
        name = path or type(child).__name__
        if reason := "skipped" if id(child) in skipped else _reason_to_leave(child, shared, folds=False):
            left.append(f"{name}: {reason}")
            continue
        try:
            plan.append((name, child, _to_layer(child, layers)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, child, layer in plan:
        before = type(child), vars(child)
        _become(child, layer)
        if example is not None and (failure := _failure(module, example, expected)):
            child.__class__, child.__dict__ = before
            left.append(f"{name}: {failure}")
    return module, left


@torch.no_grad()
def _to_plain(layer: Layer, fast: bool = False, share: bool = False) -> nn.Linear | nn.Conv2d:
    """An nn.Linear or nn.Conv2d (fast: a subclass) with the layer's eval-mode function; see `fold` for share."""
    v = layer.weight.v
    learns = {
        "weight": any(p.requires_grad for p in layer.weight.parameters()),
        "bias": layer.shift.bias.requires_grad,
    }
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
            setattr(plain, name, nn.Parameter(value.clone(), requires_grad=learns[name]))
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
    Layers with layer norm stay layers of ours. Hooks of a layer are kept. A layer that shares tensors, is
    parametrized or patched, or whose parameters carry hooks stays a layer of ours too, and a warning names it.
    """
    kept = {id(parameter): parameter for parameter in module.parameters()} if share else {}
    folded, shared = copy.deepcopy(module, kept), _shared_storages(module)
    for (name, layer), child in zip(named_layers(module), layers_of(folded), strict=True):
        # Of the layer itself: a copy has neither its storages nor the hooks of its parameters.
        if isinstance(layer.shift, LayerNorm):
            continue
        if reason := _reason_to_leave(layer, shared, folds=True):
            warnings.warn(f"{name or 'the layer'} is not folded: {reason}", stacklevel=2)
        else:
            _become(child, _to_plain(child, fast, share))
    for part in folded.modules():
        if isinstance(part, Preprocess) and not fast:
            part.row = 1  # torch's convolutions take images
    return folded.eval()


def _fold_pairs(folded: Any, module: nn.Module, *, in_place: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(tensor of the fold, its value in the module) for every parameter and buffer.

    in_place: the fold's own tensor may be the value already.
    """
    if isinstance(module, Layer) and not isinstance(folded, Layer):
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
