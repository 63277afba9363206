"""Q-networks by name: each is a function that makes an nn.Sequential from layers of any parameterization."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wn_rl.nn.layers import Conv, Layers, named_layers
from wn_rl.nn.products import cuts_into_blocks, pixel_rows, rows_are_faster
from wn_rl.registry import NETWORKS, PARAMETERIZATIONS, did_you_mean

MANY_PIXELS = 1024  # of an image, from which channels-last convolutions are faster by more than they cost


class Preprocess(nn.Module):
    """[B, K, *O] of any dtype -> [B, K * O0, ...] scaled, in the network's floating dtype.

    The only place where the stack K is merged into the frame's leading axis; a frame [H, W] without channels
    gives [B, K, H, W]. After `scale_in_first_convolution` it leaves scaling to the convolution that follows, and
    gives [B, K, H, W / row, row] where that is faster.
    """

    dtype_of_network: Tensor
    scales = True
    row = 1  # pixels in a row

    def __init__(self, frame_shape: tuple[int, ...], stack: int, scale: float) -> None:
        super().__init__()
        self.stacked_shape = (stack, *frame_shape)
        self.scale = scale
        has_channels = len(frame_shape) != 2
        self.output_shape = (stack * frame_shape[0], *frame_shape[1:]) if has_channels else self.stacked_shape
        # An empty buffer, which .to() and .double() move and convert along with the parameters.
        self.register_buffer("dtype_of_network", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.stacked_shape:
            raise ValueError(f"expected observations [B, *{self.stacked_shape}], got {tuple(x.shape)}")
        dtype = self.dtype_of_network.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)  # what the first layer would round to
        merged = x.reshape(-1, *self.output_shape)
        is_large = merged.dim() == 4 and merged.shape[2] * merged.shape[3] >= MANY_PIXELS
        arranged = is_large and x.device.type != "cpu"
        if self.row > 1 and rows_are_faster(merged, self.row):
            merged = pixel_rows(merged, self.row)  # first: of bytes it is a quarter of the work
        converted = merged.to(dtype, memory_format=torch.channels_last if arranged else torch.preserve_format)
        if self.scales and self.scale != 1:
            # In place where the conversion made a tensor of our own: half the time on stacks of pixels.
            converted = merged * self.scale if converted is merged else converted.mul_(self.scale)
        return converted


def scale_in_first_convolution(network: nn.Sequential) -> None:
    """On CPUs, let the convolution after Preprocess do what is cheaper there; the function stays the same.

    It multiplies its weights by the scale of observations, since there are fewer of them than pixels. And it takes
    bytes in the order in which it goes over them (`pixel_rows`), if it can.
    For networks of our layers and their fast folds; torch's own convolutions can do neither.
    """
    for first, layer in itertools.pairwise(network):
        if isinstance(first, Preprocess) and isinstance(layer, Conv):
            layer.input_scale, first.scales = first.scale, False
            if cuts_into_blocks(layer.weight.v, layer.geometry):
                first.row = layer.geometry.stride[1]


def _channels_and_features(
    name: str, preprocess: Preprocess, filters: int, *kernels_and_strides: tuple[int, int], smallest: int
) -> tuple[int, int]:
    """Channels of the input and features after unpadded convolutions. ValueError: the frames are too small."""
    shape = preprocess.output_shape
    if len(shape) != 3:
        raise ValueError(f"{name} needs frames [H, W] or [C, H, W], not {preprocess.stacked_shape[1:]}; try mlp")
    channels, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(f"{name} needs frames of at least {smallest}x{smallest}, not {height}x{width}")
    for kernel, stride in kernels_and_strides:
        height, width = ((size - kernel) // stride + 1 for size in (height, width))
    return channels, filters * height * width


def _sequential(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def nature_cnn(
    frame_shape: tuple[int, ...], stack: int, num_actions: int, scale: float, layers: Layers
) -> nn.Sequential:
    """Mnih et al. 2015, Methods: 32 filters 8x8 stride 4, 64 4x4 stride 2, 64 3x3 stride 1, 512 units."""
    preprocess = Preprocess(frame_shape, stack, scale)
    convolutions = (8, 4), (4, 2), (3, 1)
    channels, features = _channels_and_features("nature_cnn", preprocess, 64, *convolutions, smallest=36)
    return _sequential(
        preprocess=preprocess,
        conv1=layers.conv(channels, 32, *convolutions[0]),
        relu1=nn.ReLU(inplace=True),  # a second tensor of this size takes time; hooks see the result
        conv2=layers.conv(32, 64, *convolutions[1]),
        relu2=nn.ReLU(inplace=True),
        conv3=layers.conv(64, 64, *convolutions[2]),
        flatten=nn.Flatten(),
        relu3=nn.ReLU(),  # after flatten: faster, where that changes the order in memory
        dense=layers.dense(features, 512),
        relu4=nn.ReLU(),
        output=layers.dense(512, num_actions),
    )


def minatar_cnn(
    frame_shape: tuple[int, ...], stack: int, num_actions: int, scale: float, layers: Layers
) -> nn.Sequential:
    """Young & Tian 2019 (MinAtar), the DQN there: 16 filters 3x3 stride 1, 128 units."""
    preprocess = Preprocess(frame_shape, stack, scale)
    channels, features = _channels_and_features("minatar_cnn", preprocess, 16, (3, 1), smallest=3)
    return _sequential(
        preprocess=preprocess,
        conv=layers.conv(channels, 16, 3),
        relu1=nn.ReLU(),
        flatten=nn.Flatten(),
        dense=layers.dense(features, 128),
        relu2=nn.ReLU(),
        output=layers.dense(128, num_actions),
    )


def mlp(frame_shape: tuple[int, ...], stack: int, num_actions: int, scale: float, layers: Layers) -> nn.Sequential:
    """Two hidden layers of 64 units, for vectors; other frames are flattened."""
    preprocess = Preprocess(frame_shape, stack, scale)
    return _sequential(
        preprocess=preprocess,
        flatten=nn.Flatten(),
        dense1=layers.dense(math.prod(preprocess.output_shape), 64),
        relu1=nn.ReLU(),
        dense2=layers.dense(64, 64),
        relu2=nn.ReLU(),
        output=layers.dense(64, num_actions),
    )


def make_network(
    name: str,
    *,
    frame_shape: tuple[int, ...],
    stack: int,
    scale: float,
    num_actions: int,
    parameterization: str,
    log_scale: float | None = None,
    overrides: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The named Q-network: observations [B, stack, *frame_shape] -> action values [B, num_actions].

    scale: what observations are multiplied by. generator: for v ~ N(0, .05); call data_dependent_init or
    default_init next. overrides: parameterizations of single layers, e.g. "output=normal".

    Raises:
        ValueError: an unknown name, or sizes that the network cannot take.
    """
    make: Callable[..., nn.Sequential] = NETWORKS[name]
    sizes = {"stack": stack, "num_actions": num_actions, "frame_shape": min(frame_shape, default=0)}
    for field, size in sizes.items():
        if size < 1:
            raise ValueError(f"{field} must be positive, not {frame_shape if field == 'frame_shape' else size}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a positive number, not {scale}")
    network = make(frame_shape, stack, num_actions, scale, Layers(parameterization, log_scale, generator))
    layers = dict(named_layers(network))
    kinds = {list(layers)[-1]: "normal"} if PARAMETERIZATIONS[parameterization].frees_output else {}
    for layer, kind in (kinds | dict(map(split_override, overrides))).items():
        if layer not in layers:
            raise ValueError(f"--network.override {layer}={kind}: the layers of {name} are {', '.join(layers)}")
        Layers(kind).convert(layers[layer])
    return network


def split_override(text: str) -> tuple[str, str]:
    """A layer and its parameterization. ValueError: the text is not of that form.

    >>> split_override("output=normal")
    ('output', 'normal')
    """
    layer, equals, kind = text.partition("=")
    if not equals or kind not in PARAMETERIZATIONS:
        raise ValueError(
            f"--network.override {text}: give LAYER=PARAMETERIZATION{did_you_mean(kind, PARAMETERIZATIONS)}"
        )
    return layer, kind
