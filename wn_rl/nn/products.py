"""The product of dense layers on a CPU, through oneDNN: on processors that torch's BLAS (MKL) does not know well,
it takes half the time in float32 (measured in docs/benchmarks.md). Everything else is torch's own `F.linear`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALLEST = 2**15  # weights; below, oneDNN's overhead is more than it saves

_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # what torch.compile calls for inference


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] times b [N, K] transposed, plus bias [N], in any strides."""
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


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]: F.linear, faster where it can be."""
    if (
        _onednn is None
        or x.dim() != 2
        or weight.numel() < SMALLEST
        or not (x.device.type == weight.device.type == "cpu")
        or not (x.dtype == weight.dtype == torch.float32)
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ):
        return F.linear(x, weight, bias)
    result: Tensor = _DenseProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class FastLinear(nn.Linear):
    """nn.Linear, its product by `dense_product`."""

    def forward(self, input: Tensor) -> Tensor:
        return dense_product(input, self.weight, self.bias)
