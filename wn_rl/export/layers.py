"""A network of plain layers as a list that JSON can hold, and back: no code, and no class by its name.

A new kind of layer is one line in KINDS, and one case in `standalone.py`.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import nn

from wn_rl.errors import UserError


class Kind(NamedTuple):
    """A class of modules, and the arguments of its constructor that it keeps as attributes."""

    module: type[nn.Module]
    settings: tuple[str, ...]


KINDS = {
    "conv2d": Kind(
        nn.Conv2d, ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    ),
    "linear": Kind(nn.Linear, ("in_features", "out_features")),
    "relu": Kind(nn.ReLU, ()),
    "tanh": Kind(nn.Tanh, ()),
    "flatten": Kind(nn.Flatten, ("start_dim", "end_dim")),
}


def describe(modules: list[tuple[str, nn.Module]]) -> list[dict[str, Any]]:
    """{"name", "kind", settings...} of each named module. UserError: one is of no kind in KINDS."""
    return [_describe(name, module) for name, module in modules]


def _describe(name: str, module: nn.Module) -> dict[str, Any]:
    for kind, (known, settings) in KINDS.items():
        if type(module) is known:
            return {"name": name, "kind": kind, **{setting: getattr(module, setting) for setting in settings}}
    raise UserError(f"the layer {name} is a {type(module).__name__}, and only {', '.join(KINDS)} can be exported")


def build(description: list[dict[str, Any]]) -> OrderedDict[str, nn.Module]:
    """The modules of a description, on the meta device: they hold no numbers, whatever sizes it claims.

    Raises:
        UserError: it is not a description.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in description:
        try:
            values = {name: _checked(value) for name, value in layer.items() if name not in ("name", "kind")}
            module, settings = KINDS[layer["kind"]]
            if set(values) != set(settings):
                raise ValueError(f"settings {sorted(values)} instead of {sorted(settings)}")
            with torch.device("meta"):
                modules[str(layer["name"])] = module(**values)
        except Exception as error:  # whatever a constructor says of numbers that cannot be
            raise UserError(f"the layer {layer} cannot be built: {error or type(error).__name__}") from None
    return modules


def _checked(value: Any) -> int | str | tuple[int, ...]:
    """A setting as JSON gives it. ValueError unless it is an integer, a word or a list of integers."""
    if isinstance(value, list) and all(type(number) is int for number in value):
        return tuple(value)
    if type(value) in (int, str):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"a setting cannot be {value!r}")
