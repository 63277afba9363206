"""All that we use of torch's private interfaces. Where a torch lacks one, a public operation gives the same."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map

# What torch.compile calls for inference: (x, weight, bias, "none", [], ""). None: F.linear is used.
onednn_linear: Any = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

# (v, g, 0) gives g v / |v| in one operation forward and one backward. None: plain operations are used.
one_weight_norm: Any = getattr(torch, "_weight_norm", None)

functorch_is_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
is_tracing: Callable[[], bool] = getattr(torch._C, "_is_tracing", lambda: True)

# Without the wrapper whose first call imports torch's compiler, which takes more than a second.
add_param_group: Any = inspect.unwrap(Optimizer.add_param_group)


def carries_hooks(tensor: Tensor) -> bool:
    """Whether its gradient goes through hooks."""
    return any(getattr(tensor, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks"))


def forward_mode_is_active() -> bool:
    """Whether derivatives are taken in forward mode. Where this is unknown, the answer is yes."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def one_by_one(name: str, tensors: Sequence[Tensor], *others: Any, **named: Any) -> list[Tensor]:
    """The operation NAME of Tensor for each tensor, with its own part of every sequence in `others`."""
    found = []
    for number, tensor in enumerate(tensors):
        own = [other[number] if isinstance(other, list | tuple) else other for other in others]
        if name == "maximum_":  # Tensor has no such method
            found.append(tensor.copy_(tensor.maximum(*own)))
        else:
            found.append(getattr(tensor, name)(*own, **named))
    return found


def _foreach(name: str) -> Callable[..., Any]:
    """As `one_by_one`, with one kernel for many tensors."""
    return getattr(torch, f"_foreach_{name}", partial(one_by_one, name))


foreach_abs, foreach_add, foreach_mul = map(_foreach, ("abs", "add", "mul"))
foreach_add_, foreach_mul_, foreach_sqrt_ = map(_foreach, ("add_", "mul_", "sqrt_"))
foreach_addcdiv_, foreach_addcmul_, foreach_lerp_ = map(_foreach, ("addcdiv_", "addcmul_", "lerp_"))
foreach_copy_, foreach_maximum_ = map(_foreach, ("copy_", "maximum_"))
