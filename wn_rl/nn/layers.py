"""Layers on two axes: an operation (dense, conv), a Weight (how w is made) and a Shift (what happens to w.x).

    normal            = Direct, Bias              weight_norm              = Normalized, Bias
    normal_fixed_gain = FixedGain, Bias           weight_norm_mean_only_bn = Normalized, MeanOnlyBatchNorm
    batch_norm        = Direct, BatchNorm         projected                = Projected, Bias
    layer_norm        = Direct, LayerNorm         projected_layer_norm     = Projected, LayerNorm
    spectral_norm     = SpectralNorm, Bias        projected_batch_norm     = Projected, BatchNorm

The order in a layer is operation, statistics, shift; the nonlinearity is the network's. Equation numbers are
those of Salimans & Kingma 2016, "Weight Normalization".
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn

from wn_rl.nn.products import Geometry, convolution, dense_product, normalized_dense_product, onednn_is_faster
from wn_rl.nn.shifts import BatchNorm, Bias, LayerNorm, MeanOnlyBatchNorm, Shift
from wn_rl.nn.weights import Direct, FixedGain, Normalized, Projected, SpectralNorm, Weight, unit_norms
from wn_rl.registry import PARAMETERIZATIONS

INITIAL_STD = 0.05  # of v, section 3


class Layer(nn.Module, ABC):
    """An operation with a Weight and a Shift; Dense and Conv say which operation.

    It offers what nn.Linear and nn.Conv2d do: sizes, `bias`, and `weight` as a tensor (see `TensorLike`).
    held: what to take for the weight in training mode, where it was computed before (see `hold_weights`).
    """

    feature_axis: int
    held: Tensor | None = None

    def __init__(self, weight: Weight, shift: Shift) -> None:
        super().__init__()
        self.weight = weight
        self.shift = shift
        vars(weight)["shift"] = shift  # not as a part of it

    @property
    def bias(self) -> Tensor:
        """The bias [out] of the plain layer with the same eval-mode function."""
        return self.shift.fold(self.weight())[1]

    @abstractmethod
    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """w.x (+ b), features on `feature_axis`."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight() if self.held is None or not self.training else self.held
        shifted: Tensor = self.shift(self.operate(input, weight, self.shift.operand), self.feature_axis)
        return shifted

    @torch.no_grad()
    def folded(self, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weight [out, in, ...] and bias [out] of the plain layer with the same eval-mode function.

        They may be parameters of the layer. out: where to compute the weight, if that spares a copy.
        """
        weight = self.weight
        if type(weight) is not Normalized:  # a class derived from it may make w otherwise
            return self.shift.fold(weight())
        return self.shift.fold(torch.mul(weight.v, weight.scale(), out=out))


class Dense(Layer):
    """[..., in] -> [..., out]."""

    feature_axis = -1
    in_features = property(lambda layer: layer.weight.v.shape[1])
    out_features = property(lambda layer: layer.weight.v.shape[0])

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if not (isinstance(weight, Normalized) and self.held is None and onednn_is_faster(input, weight.v)):
            return super().forward(input)
        t = normalized_dense_product(input, weight.v, weight.gain(), self.shift.operand)
        shifted: Tensor = self.shift(t, self.feature_axis)
        return shifted.bfloat16() if torch.is_autocast_enabled("cpu") else shifted

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return dense_product(x, weight, bias)


class Conv(Layer):
    """[B, in, H, W] -> [B, out, H', W']; the last four arguments mean what they mean in F.conv2d.

    input_scale: what x is multiplied by first, see `scale_in_first_convolution`.
    """

    feature_axis = -3
    input_scale = 1.0
    in_channels = property(lambda layer: layer.weight.v.shape[1] * layer.groups)
    out_channels = property(lambda layer: layer.weight.v.shape[0])
    kernel_size = property(lambda layer: tuple(layer.weight.v.shape[2:]))
    stride, padding, dilation, groups = (property(attrgetter(f"geometry.{name}")) for name in Geometry._fields)
    padding_mode = "zeros"

    def __init__(
        self,
        weight: Weight,
        shift: Shift,
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(weight, shift)
        padding = padding if isinstance(padding, str) else _pair(padding)
        self.geometry = Geometry(_pair(stride), padding, _pair(dilation), groups)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolution(x, weight, bias, self.geometry, self.input_scale)


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True)
class Parameterization:
    """How a layer is made: its Weight from v [out, in, ...], its Shift from b [out].

    frees_output: whether the last layer of a Q-network is a normal one, so that nothing bounds its values.
    """

    weight: Callable[[Tensor], Weight]
    shift: Callable[[Tensor], Shift]
    frees_output: bool = False

    @property
    def is_normalized(self) -> bool:
        """Whether its layers have a norm |v| and a gain g: what log_scale and the bound on |v| need."""
        return self.weight is Normalized

    @property
    def has_batch_statistics(self) -> bool:
        """Whether its layers take the batch's statistics in training, for which a batch needs two states."""
        return self.shift in (BatchNorm, MeanOnlyBatchNorm)


NORMAL = Parameterization(Direct, Bias)
NORMAL_FIXED_GAIN = Parameterization(FixedGain, Bias)
BATCH_NORM = Parameterization(Direct, BatchNorm)
LAYER_NORM = Parameterization(Direct, LayerNorm, frees_output=True)
PROJECTED = Parameterization(Projected, Bias, frees_output=True)
PROJECTED_LAYER_NORM = Parameterization(Projected, LayerNorm, frees_output=True)
PROJECTED_BATCH_NORM = Parameterization(Projected, BatchNorm, frees_output=True)
SPECTRAL_NORM = Parameterization(SpectralNorm, Bias, frees_output=True)
WEIGHT_NORM = Parameterization(Normalized, Bias)
WEIGHT_NORM_MEAN_ONLY_BN = Parameterization(Normalized, MeanOnlyBatchNorm)


class Layers:
    """Makes the layers of one parameterization, v ~ N(0, .05) from the generator and b = 0.

    The draws are the same for every parameterization, and so is the function: w = v in each (in eval mode,
    before any statistics are gathered). log_scale: c of g = exp(c s), 3 in the paper; None learns g itself.
    On a CPU, dense layers of large products (batch times weights from 2**20) in float32 support only first
    derivatives: double backward raises an error (not in float64, nor in a fold of plain torch layers). Weights
    without elements have no norm and no statistics: such a layer is a normal one.
    ValueError: an unknown parameterization, a log_scale that is not positive or that nothing would use.
    """

    def __init__(
        self, parameterization: str, log_scale: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        kind: Parameterization = PARAMETERIZATIONS[parameterization]
        self.normalized, self.generator = kind.is_normalized, generator
        self.make_weight, self.make_shift = kind.weight, kind.shift
        if log_scale is not None:
            if not self.normalized:
                raise ValueError(f"log_scale needs a weight_norm parameterization, not {parameterization!r}")
            if not (log_scale > 0 and math.isfinite(log_scale)):
                raise ValueError(f"log_scale must be a positive number, not {log_scale}")
            self.make_weight = partial(Normalized, log_scale=log_scale)

    def parts(self, v: Tensor, bias: Tensor) -> tuple[Weight, Shift]:
        """The weight of v [out, in, ...] and the shift of bias [out]."""
        return (self.make_weight(v), self.make_shift(bias)) if v.numel() else (Direct(v), Bias(bias))

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """v ~ N(0, .05) on the generator's device."""
        device = None if self.generator is None else self.generator.device
        return torch.randn(shape, generator=self.generator, device=device) * INITIAL_STD

    def _parts(self, *shape: int) -> tuple[Weight, Shift]:
        v = self.draw(shape)
        return self.parts(v, v.new_zeros(shape[0]))

    def convert(self, layer: "Layer") -> None:
        """Make a layer that was just drawn one of this parameterization, with the same v and b = 0."""
        v = layer.weight.v.detach()
        Layer.__init__(layer, *self.parts(v, v.new_zeros(len(v))))

    def dense(self, in_features: int, out_features: int) -> Dense:
        """A layer [..., in_features] -> [..., out_features]."""
        return Dense(*self._parts(out_features, in_features))

    def conv(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> Conv:
        """A layer [B, in_channels, H, W] -> [B, out_channels, H', W'] with a square kernel."""
        return Conv(*self._parts(out_channels, in_channels, kernel, kernel), stride, padding)


def named_layers(module: nn.Module) -> Iterator[tuple[str, Layer]]:
    """(name, layer) for each layer of ours in a module."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, Layer))


def layers_of(module: nn.Module) -> list[Layer]:
    """The layers of ours in a module."""
    return [layer for _, layer in named_layers(module)]


def named_normalized(module: nn.Module) -> Iterator[tuple[str, Normalized]]:
    """(name of the layer, its weight) for each weight-normalized layer of the module."""
    return ((name, layer.weight) for name, layer in named_layers(module) if isinstance(layer.weight, Normalized))


@torch.no_grad()
def bound_v(module: nn.Module, maximum: float) -> None:
    """Shrink, in place, each unit's v with |v| > maximum to |v| = maximum (section 6.2).

    Call it after the optimizer's step. The function stays the same: w does not depend on |v|.
    """
    if not maximum > 0:
        raise ValueError(f"the bound on |v| must be positive, not {maximum}")
    for _, weight in named_normalized(module):
        weight.v.mul_((maximum / unit_norms(weight.v)).clamp_(max=1.0))


@torch.no_grad()
def norms(module: nn.Module) -> dict[str, Tensor]:
    """Mean |v| and mean |g| of each weight-normalized layer: "norm_v/<layer>", "norm_g/<layer>" (0-d)."""
    found: dict[str, Tensor] = {}
    for name, weight in named_normalized(module):
        found[f"norm_v/{name}"] = unit_norms(weight.v).mean()
        found[f"norm_g/{name}"] = weight.gain().abs().mean()
    return found
