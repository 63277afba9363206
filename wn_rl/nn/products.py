"""The products of dense layers and convolutions where torch's own `F.linear` and `F.conv2d` are slow.

Large dense layers on a CPU that is not Intel's go through oneDNN: there torch's BLAS (MKL) takes twice the time in
float32, on Intel's a fifth less. Weight-normalized ones are one function of our own on both. Such layers have
first derivatives alone, by backward: double backward, forward mode and torch.func raise an error. Convolutions
with a stride go over blocks of pixels on a CUDA device, and on a CPU over rows of pixels where these lie
together or channels are few. Compiled dense layers of few outputs are sums on CUDA, which the compiler writes.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

SMALLEST = 2**20  # multiplications; below, oneDNN's overhead is more than it saves
BLOCKS_ON = ("cuda",)  # devices; on a CPU rows are made faster
# Of images whose convolution goes over rows of pixels: with more channels, or to act on few, it is fast as it is.
FEW_CHANNELS, MANY_IMAGES = 16, 16
FEW_OUTPUTS = 32  # up to so many, cuBLAS takes several times as long as a sum that Inductor writes out

# What torch.compile calls for inference. None where torch was built without oneDNN.
_onednn = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _is_intel() -> bool:
    """Whether this is an Intel processor, for which MKL is made."""
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and "GenuineIntel" in cpu_info.read_text()


MKL_IS_FASTER = torch.backends.mkl.is_available() and _is_intel()  # type: ignore[no-untyped-call]


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] times b [N, K] transposed, plus bias [N], in any strides."""
    if a.dtype == torch.bfloat16 or MKL_IS_FASTER:  # bfloat16 goes through oneDNN by itself
        return F.linear(a, b, bias)
    assert _onednn is not None
    result: Tensor = _onednn(a, b, bias, "none", [], "")
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
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        ctx.dtype = torch.bfloat16 if _in_bfloat16() else torch.float32
        norms = torch.linalg.vector_norm(v, dim=1)
        scale = gain.view(-1) / norms
        t = _product(x.to(ctx.dtype), v.to(ctx.dtype)).float()
        ctx.save_for_backward(x, v, t, norms, scale)
        return t * scale if bias is None else torch.addcmul(bias, t, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, v, t, norms, scale = ctx.saved_tensors
        of_x, of_v, of_gain, of_bias = ctx.needs_input_grad
        gradient_of_t = (gradient * scale).to(ctx.dtype)
        gradient_of_gain = (gradient * t).sum(0) / norms
        gradient_of_v = None
        if of_v:
            gradient_of_v = _product(gradient_of_t.t(), x.to(ctx.dtype).t()).float()
            gradient_of_v.addcmul_(v, (scale * gradient_of_gain / norms)[:, None], value=-1)
        return (
            _product(gradient_of_t, v.to(ctx.dtype).t()).to(x.dtype) if of_x else None,
            gradient_of_v,
            gradient_of_gain[:, None] if of_gain else None,
            gradient.sum(0) if of_bias else None,
        )


def _is_differentiated() -> bool:
    """Whether there may be derivatives of any kind: forward mode does not ask whether gradients are enabled."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def onednn_pays(x: Tensor, weight: Tensor) -> bool:
    """Whether x [B, in] times weight [out, in] is worth a function of our own: on a CPU, of float32, not small."""
    return (
        _onednn is not None
        and not torch.compiler.is_compiling()  # torch.compile takes the operation with constant weights alone
        and x.dim() == 2
        and len(x) * weight.numel() >= SMALLEST
        and x.device.type == weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and (x.dtype == torch.float32 or _in_bfloat16())
    )


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]: F.linear, faster where it can be."""
    if torch.compiler.is_compiling() and x.device.type == "cuda" and len(weight) <= FEW_OUTPUTS:
        return sum_of_products(x, weight, bias)
    if torch.is_autocast_enabled("cpu") or MKL_IS_FASTER or not onednn_pays(x, weight):
        return F.linear(x, weight, bias)
    if not _is_differentiated():
        return _product(x, weight, bias)
    result: Tensor = _DenseProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def sum_of_products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear for few outputs, written out for torch.compile, which makes one kernel of it."""
    products = (x.unsqueeze(-2) * weight).sum(-1)
    return products if bias is None else products + bias


def normalized_dense_product(x: Tensor, v: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    """dense_product with weight g v / |v| (eq. 2), v [out, in] and gain g [out, 1]; only where `onednn_pays`."""
    result: Tensor = _NormalizedDenseProduct.apply(x, v, gain, bias)  # type: ignore[no-untyped-call]
    return result


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: str | tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """F.conv2d, faster where it can be.

    A kernel of 8x8 with stride 4 is one of 2x2 with stride 1 over blocks of 4x4 pixels, each block's pixels as
    channels, or one of 8x2 with strides 4 and 1 over rows of 4 pixels: the same products in another order. Few
    input channels and strides are what cuDNN is slow with; oneDNN's gradients of fewer strides are faster too.
    """
    if not cuts_into_blocks(x, weight, stride, padding, dilation, groups):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    side = stride[0]
    batch, channels, height, width = x.shape
    whole = width - width % side  # a rest shorter than a block is in no product
    if x.device.type in BLOCKS_ON:
        blocks = F.pixel_unshuffle(x[:, :, : height - height % side, :whole], side)
        return F.conv2d(blocks, F.pixel_unshuffle(weight, side), bias)
    pixels = weight.reshape(*weight.shape[:3], -1, side)  # [out, C, H, W / side, side]
    if lies_in_rows(x, side):
        kernel = pixels.movedim(-1, 1)
        rows = x.permute(0, 2, 3, 1).view(batch, height, width // side, side * channels).permute(0, 3, 1, 2)
    elif rows_pay(x, side):
        kernel = pixels.movedim(-1, 2)
        rows = _PixelRows.apply(x[..., :whole], side)  # type: ignore[no-untyped-call]
    else:
        return F.conv2d(x, weight, bias, stride)
    return F.conv2d(rows, kernel.flatten(1, 2), bias, (side, 1))


def cuts_into_blocks(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: str | tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> bool:
    """Whether a convolution's square stride cuts its images [B, C, H, W] and its kernel into blocks."""
    return (
        x.dim() == 4
        and stride[0] == stride[1] > 1
        and all(size % stride[0] == 0 for size in weight.shape[2:])
        and padding in ((0, 0), "valid")
        and dilation == (1, 1)
        and groups == 1
    )


# A type as long as a row of pixels, by the bytes of both: to move rows, not pixels.
_TYPES_OF_BYTES = {4: torch.int32, 8: torch.int64, 16: torch.complex128}


def lies_in_rows(x: Tensor, side: int) -> bool:
    """Whether a convolution of x [B, C, H, W] goes over rows that need no copy: channels-last images on a CPU."""
    return _is_plain(x) and x.shape[3] % side == 0 and x.is_contiguous(memory_format=torch.channels_last)


def rows_pay(x: Tensor, side: int) -> bool:
    """Whether rows of x [B, C, H, W] are worth a copy: on a CPU, of many images, of few channels."""
    return (
        _is_plain(x)
        and len(x) >= MANY_IMAGES
        and x.shape[1] <= FEW_CHANNELS
        and x.stride(-1) == 1
        and x.element_size() * side in _TYPES_OF_BYTES
    )


def _is_plain(x: Tensor) -> bool:
    """On a CPU, and not under torch.func, where a function that is ready for it takes 50 microseconds longer."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


class _PixelRows(torch.autograd.Function):
    """Images [B, C, H, W] as [B, C * side, H, W / side] in channels-last format: rows of `side` pixels each.

    torch's own copies would move pixel by pixel, which takes four times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int) -> Tensor:
        ctx.side = side
        batch, channels, height, width = x.shape
        x = x.clone() if x.storage_offset() % side else x.contiguous()
        rows = x.view(_TYPES_OF_BYTES[x.element_size() * side])
        moved = rows.permute(0, 2, 3, 1).contiguous().view(x.dtype)
        return moved.view(batch, height, width // side, channels * side).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        batch, channels, height, width = gradient.shape
        rows = gradient.view(batch, channels // ctx.side, ctx.side, height, width).movedim(2, -1)
        return rows.flatten(3), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        result: Tensor = _PixelRows.apply(tangent, ctx.side)  # type: ignore[no-untyped-call]
        return result


class FastLinear(nn.Linear):
    """nn.Linear, its product by `dense_product`."""

    def forward(self, input: Tensor) -> Tensor:
        return dense_product(input, self.weight, self.bias)


class FastConv2d(nn.Conv2d):
    """nn.Conv2d without padding modes, its product by `convolution`."""

    def forward(self, input: Tensor) -> Tensor:
        geometry: Any = self.stride, self.padding, self.dilation, self.groups
        return convolution(input, self.weight, self.bias, *geometry)
