"""The products of dense layers and convolutions where torch's own `F.linear` and `F.conv2d` are slow.

Large dense layers on a CPU that is not Intel's go through oneDNN: there torch's BLAS (MKL) takes up to twice the
time in float32, on Intel's a fifth less. Weight-normalized ones are one function of our own on both. Such layers
support only first derivatives: double backward raises an error.
Convolutions with a stride go over blocks of pixels on a CUDA device, and on a CPU over rows of pixels where these
lie together. Compiled dense layers of few outputs are sums on CUDA, which the compiler writes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wn_rl.nn.private_torch import forward_mode_is_active, functorch_is_active, is_tracing, onednn_linear

SMALLEST = 2**20  # multiplications; below, oneDNN's overhead is more than it saves
SMALLEST_IN_BFLOAT16 = 2**24  # the products themselves take less time there
BLOCKS_ON = ("cuda",)  # devices; on a CPU rows are made faster
# Of images that are worth a copy in rows of pixels; with more channels, or to act on few, they are fast as is.
FEW_CHANNELS, MANY_IMAGES = 16, 16
FEW_OUTPUTS = 32  # up to this number, cuBLAS takes several times as long as a sum that Inductor writes out


def _is_intel() -> bool:
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and "GenuineIntel" in cpu_info.read_text()


# MKL is made for Intel's processors.
MKL_IS_FASTER = torch.backends.mkl.is_available() and _is_intel()  # type: ignore[no-untyped-call]


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] times b [N, K] transposed, plus bias [N], in any strides."""
    if a.dtype == torch.bfloat16 or MKL_IS_FASTER:  # bfloat16 goes through oneDNN by itself
        return F.linear(a, b, bias)
    result: Tensor = onednn_linear(a, b, bias, "none", [], "")
    return result


class _DenseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_x else None,
            _product(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


class _NormalizedDenseProduct(torch.autograd.Function):
    """x times w = g v / |v|, as (v.x) g / |v|: scaling the outputs costs less than scaling the weights.

    Backward is equation 3 of Salimans & Kingma with the sums over the batch taken first, in one pass over v.
    Under autocast the products are of bfloat16 factors; norms, scales and what comes out stay float32.
    Backward then takes the rounded v's memory for v's gradient: a new tensor of this size takes time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        ctx.dtype = torch.bfloat16 if _in_bfloat16() else torch.float32
        ctx.dtype_of_x = x.dtype
        norms = torch.linalg.vector_norm(v, dim=1)
        scale = gain.view(-1) / norms
        rounded_x, rounded_v = x.to(ctx.dtype), v.to(ctx.dtype)
        t = _product(rounded_x, rounded_v).float()
        ctx.save_for_backward(rounded_x, v, t, norms, scale)
        ctx.rounded_v = None if rounded_v is v else rounded_v
        return t * scale if bias is None else torch.addcmul(bias, t, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, v, t, norms, scale = ctx.saved_tensors
        of_x, of_v, of_gain, of_bias = ctx.needs_input_grad
        rounded_v = v.to(ctx.dtype) if ctx.rounded_v is None else ctx.rounded_v
        ctx.rounded_v = None  # a second backward of a graph that is kept rounds again
        gradient_of_t = (gradient * scale).to(ctx.dtype)
        gradient_of_gain = (gradient * t).sum(0) / norms
        gradient_of_x = _product(gradient_of_t, rounded_v.t()).to(ctx.dtype_of_x) if of_x else None
        gradient_of_v = None
        if of_v:
            along_v = (scale * gradient_of_gain / norms)[:, None]
            if ctx.dtype == torch.bfloat16:  # one pass less: the product is added to what it starts from
                gradient_of_v = rounded_v.mul_(-along_v.to(ctx.dtype)).addmm_(gradient_of_t.t(), x).float()
            else:
                gradient_of_v = _product(gradient_of_t.t(), x.t()).addcmul_(v, along_v, value=-1)
        return (
            gradient_of_x,
            gradient_of_v,
            gradient_of_gain[:, None] if of_gain else None,
            gradient.sum(0) if of_bias else None,
        )


# As `dense_product`, with weight g v / |v| (eq. 2), v [out, in], gain g [out, 1]; only where `onednn_is_faster`.
normalized_dense_product: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] = _NormalizedDenseProduct.apply


def _in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def onednn_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether x [B, in] times weight [out, in] is worth a function of our own: on a CPU, of float32, not small."""
    return (
        onednn_linear is not None
        and not torch.compiler.is_compiling()  # torch.compile takes the operation with constant weights alone
        and x.dim() == 2
        and len(x) * weight.numel() >= (SMALLEST_IN_BFLOAT16 if _in_bfloat16() else SMALLEST)
        and x.device.type == weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and (_in_bfloat16() or (x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")))
        # Those take operations of torch alone.
        and not (functorch_is_active() or forward_mode_is_active() or is_tracing())
    )


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]: F.linear or something faster."""
    if torch.compiler.is_compiling() and x.device.type == "cuda" and len(weight) <= FEW_OUTPUTS:
        return sum_of_products(x, weight, bias)
    if torch.is_autocast_enabled("cpu") or MKL_IS_FASTER or not onednn_is_faster(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        result: Tensor = _DenseProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _product(x, weight, bias)


def sum_of_products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear for few outputs, written out for torch.compile, which makes one kernel of it."""
    products = (x.unsqueeze(-2) * weight).sum(-1)
    return products if bias is None else products + bias


def scaling_outputs_is_faster(v: Tensor) -> bool:
    """Whether a copy of a dense layer of g v / |v| should share v [out, in]: on a CPU, if not small."""
    return v.device.type == "cpu" and v.numel() >= SMALLEST


class Geometry(NamedTuple):
    """How a kernel goes over images, as in F.conv2d."""

    stride: tuple[int, int]
    padding: str | tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, input_scale: float = 1.0
) -> Tensor:
    """F.conv2d of input_scale * x, or something faster.

    x: images [B, C, H, W], or what `pixel_rows` made of them.

    A kernel of 8x8 with stride 4 is one of 2x2 with stride 1 over blocks of 4x4 pixels, each block's pixels as
    channels, or one of 8x2 with strides 4 and 1 over rows of 4 pixels: the same products in another order. Few
    input channels and strides are what cuDNN is slow with; oneDNN's gradients of fewer strides are faster too.
    """
    if input_scale != 1:
        weight = weight * input_scale  # the same product: there are fewer weights than pixels
    side = geometry.stride[1]
    if x.dim() == 5 and x.shape[4] == side:
        return _over_rows(x.permute(0, 2, 3, 1, 4), weight, bias, side, place=2)
    if x.dim() != 4 or not cuts_into_blocks(weight, geometry):
        stride, padding, dilation, groups = geometry
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if x.device.type in BLOCKS_ON:
        # A rest that is shorter than a block is in no product.
        height, width = (size - size % side for size in x.shape[2:])
        blocks = F.pixel_unshuffle(x[:, :, :height, :width], side)
        return F.conv2d(blocks, F.pixel_unshuffle(weight, side), bias)
    if lies_in_rows(x, side):
        rows = torch.unflatten(x.permute(0, 2, 3, 1), 2, (-1, side))
        return _over_rows(rows, weight, bias, side, place=1)
    return F.conv2d(x, weight, bias, geometry.stride)


def _over_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, side: int, *, place: int) -> Tensor:
    """From rows [B, H, W / side, C, side] (place=2) or [B, H, W / side, side, C] (place=1) of pixels."""
    kernel = torch.unflatten(weight, 3, (-1, side)).movedim(-1, place)
    return F.conv2d(rows.flatten(3).permute(0, 3, 1, 2), kernel.flatten(1, 2), bias, (side, 1))


def cuts_into_blocks(weight: Tensor, geometry: Geometry) -> bool:
    """Whether a convolution's square stride cuts images and its kernel into blocks."""
    stride, padding, *others = geometry
    return (
        stride[0] == stride[1] > 1
        and all(size % stride[0] == 0 for size in weight.shape[2:])
        and padding in ((0, 0), "valid")
        and others == [(1, 1), 1]
    )


def lies_in_rows(x: Tensor, side: int) -> bool:
    """Whether a convolution of x [B, C, H, W] goes over rows that need no copy: channels-last images on a CPU."""
    return _is_plain(x) and x.shape[3] % side == 0 and x.is_contiguous(memory_format=torch.channels_last)


_TYPE_OF_ROW = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by its length in bytes: to move rows, not bytes


def rows_are_faster(x: Tensor, side: int) -> bool:
    """Whether rows of x [B, C, H, W] are worth a copy: on a CPU, of bytes, many images and few channels."""
    return (
        _is_plain(x)
        and x.dtype == torch.uint8
        and len(x) >= MANY_IMAGES
        and x.shape[1] <= FEW_CHANNELS
        and x.shape[3] % side == 0
        and side in _TYPE_OF_ROW
        and x.stride(3) == 1
        and all(places % side == 0 for places in (x.storage_offset(), *x.stride()[:3]))
    )


def pixel_rows(x: Tensor, side: int) -> Tensor:
    """Images [B, C, H, W] of bytes as [B, C, H, W / side, side], in memory [B, H, W / side, C, side].

    So a convolution finds the channels of a row of pixels together. Only where `rows_are_faster`.
    """
    moved = x.view(_TYPE_OF_ROW[side]).permute(0, 2, 3, 1).contiguous()
    return moved[..., None].view(torch.uint8).permute(0, 3, 1, 2, 4)


def _is_plain(x: Tensor) -> bool:
    """On a CPU, and not under torch.func, where a function that is ready for it takes 50 microseconds longer."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not functorch_is_active()


class FastLinear(nn.Linear):
    """nn.Linear, its product by `dense_product`."""

    def forward(self, input: Tensor) -> Tensor:
        return dense_product(input, self.weight, self.bias)


class ScaledLinear(nn.Linear):
    """nn.Linear of scale * weight, scale [out, 1]: scaling the outputs costs less than scaling the weights."""

    scale: Tensor

    def __init__(self, in_features: int, out_features: int, device: str | None = None) -> None:
        super().__init__(in_features, out_features, device=device)
        self.register_buffer("scale", torch.ones(out_features, 1, device=device))

    def forward(self, input: Tensor) -> Tensor:
        return torch.addcmul(self.bias, dense_product(input, self.weight, None), self.scale.view(-1))


class FastConv2d(nn.Conv2d):
    """nn.Conv2d of input_scale * x without padding modes, its product by `convolution`."""

    input_scale = 1.0

    def forward(self, input: Tensor) -> Tensor:
        geometry: Any = self.stride, self.padding, self.dilation, self.groups
        return convolution(input, self.weight, self.bias, Geometry(*geometry), self.input_scale)
