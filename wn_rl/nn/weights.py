"""How a layer's weights w come from its parameters: directly, or weight-normalized (Salimans & Kingma)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_rl.nn.private_torch import one_weight_norm, tree_map
from wn_rl.nn.shifts import Shift

# What a network may read of the weight of a layer. All else that a tensor has, `layer.weight()` has.
READ = (
    *("shape", "dtype", "device", "ndim", "T", "mT", "requires_grad", "is_cuda", "size", "dim", "numel", "t"),
    *("transpose", "permute", "view", "reshape", "flatten", "unsqueeze", "chunk", "split", "unbind", "detach"),
    *("clone", "contiguous", "to", "type", "float", "half", "double", "bfloat16", "cpu", "cuda", "__getitem__"),
    *("__matmul__", "__add__", "__sub__", "__mul__", "__rmul__", "__truediv__", "__neg__"),
)


def unit_norms(weight: Tensor) -> Tensor:
    """Euclidean norm of each output unit's weights: [out, ...] -> [out, 1, ...]."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
    return norms


class TensorLike(nn.Module):
    """A module that stands for a tensor: torch's functions take it, and it has the attributes that READ names."""

    shift: Shift  # the layer's

    def read(self) -> Tensor:
        """The weight [out, in, ...] of the plain layer with the layer's eval-mode function."""
        return self.shift.fold(self())[0]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        given, named = given or (), named or {}
        if function.__name__.endswith("_") and isinstance([*given, *named.values()][0], TensorLike):
            raise TypeError("the weight is computed: change v, or call set_g or set_multiple")
        given, named = tree_map(lambda x: x.read() if isinstance(x, TensorLike) else x, (given, named))
        return function(*given, **named)


for _name in READ:
    setattr(TensorLike, _name, property(lambda weight, name=_name: getattr(weight.read(), name)))  # type: ignore[misc]


class Direct(TensorLike):
    """w = v, [out, in, ...]."""

    def __init__(self, v: Tensor) -> None:
        super().__init__()
        self.v = nn.Parameter(v)

    def forward(self) -> Tensor:
        return self.v

    def gradients(self, of_w: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Each parameter with the gradient that a gradient of w [out, in, ...] means for it."""
        return [(self.v, of_w)]

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out]."""
        self.v.mul_(scale.view(-1, *[1] * (self.v.dim() - 1)))


class FixedGain(TensorLike):
    """w = g v with a gain per output unit that the initialization sets and nothing trains.

    The normal parameterization that the paper compares with: `no_norm` in the authors' code. g: [out, 1, ...].
    """

    g: Tensor

    def __init__(self, v: Tensor) -> None:
        super().__init__()
        self.v = nn.Parameter(v)
        self.register_buffer("g", torch.ones_like(unit_norms(v.detach())))

    def forward(self) -> Tensor:
        return self.v * self.g

    def gradients(self, of_w: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Each parameter with the gradient that a gradient of w [out, in, ...] means for it."""
        return [(self.v, of_w * self.g)]

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out]."""
        self.g.copy_(scale.reshape(self.g.shape))


class Projected(Direct):
    """w = v, whose norm in each output unit is put back after every update to what the initialization gave it.

    No gain is trained, as in NaP (Lyle et al. 2024) and CrossQ + WN (Palenicek et al. 2025). norms: [out, 1, ...].
    """

    norms: Tensor

    def __init__(self, v: Tensor) -> None:
        super().__init__(v)
        self.register_buffer("norms", unit_norms(v.detach()))

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out], and keep its norms from now on."""
        super().set_multiple(scale)
        self.norms.copy_(unit_norms(self.v))

    @torch.no_grad()
    def after_update(self) -> None:
        """Put the norms back. A unit of zeros stays one."""
        smallest = torch.finfo(self.v.dtype).tiny
        self.v.mul_(self.norms / unit_norms(self.v).clamp(min=smallest))


class SpectralNorm(TensorLike):
    """w = c v / sigma, where sigma is the largest singular value of v as a matrix (Gogianu et al. 2021).

    Power iteration follows sigma: one iteration after each update, with u [out] as its state. c is the first w's
    largest singular value, so that the initialization decides the size of w, and no update changes it.
    """

    u: Tensor
    c: Tensor

    def __init__(self, v: Tensor) -> None:
        super().__init__()
        self.v = nn.Parameter(v)
        self.register_buffer("u", torch.ones(len(v), dtype=v.dtype, device=v.device))
        self.register_buffer("c", torch.ones((), dtype=v.dtype, device=v.device))
        self.set_multiple(torch.ones_like(self.u))

    def _right(self) -> Tensor:
        """The right vector [in * ...] that belongs to u."""
        # Sums instead of products of matrices, which autocast would round.
        return F.normalize((self.v.detach().flatten(1) * self.u[:, None]).sum(0), dim=0)

    def _sigma(self, right: Tensor) -> Tensor:
        return (self.v.flatten(1) * right * self.u[:, None]).sum().clamp(min=torch.finfo(self.v.dtype).tiny)

    def forward(self) -> Tensor:
        return self.v * (self.c / self._sigma(self._right()))

    def gradients(self, of_w: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Each parameter with the gradient that a gradient of w [out, in, ...] means for it."""
        right = self._right()
        sigma = self._sigma(right)
        along = (of_w * self.v).sum() / sigma
        return [(self.v, (of_w - along * torch.outer(self.u, right).view_as(self.v)) * (self.c / sigma))]

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out], and keep its largest singular value from now on."""
        self.v.mul_(scale.view(-1, *[1] * (self.v.dim() - 1)))
        left, values, _ = torch.linalg.svd(self.v.flatten(1), full_matrices=False)
        self.u.copy_(left[:, 0])
        self.c.copy_(values[0])

    @torch.no_grad()
    def after_update(self) -> None:
        """One power iteration."""
        self.u.copy_(F.normalize((self.v.flatten(1) * self._right()).sum(1), dim=0))


class Normalized(TensorLike):
    """w = g v / |v|, one norm per output unit (eq. 2). There is no epsilon: a row of v must not be zero.

    v: [out, in, ...]. g: [out, 1, ...], the shape torch's weight_norm saves; it starts at |v|, so w = v.
    log_scale: c of section 6.1; then the parameter is s and g = exp(c s). ValueError: v has no elements.
    """

    g: nn.Parameter
    s: nn.Parameter

    def __init__(self, v: Tensor, log_scale: float | None = None) -> None:
        super().__init__()
        if v.numel() == 0:  # torch's weight norm would end the process
            raise ValueError(f"weights of shape {list(v.shape)} have no norm: make them Direct")
        self.log_scale = log_scale
        self.v = nn.Parameter(v)
        norms = unit_norms(v.detach())
        self.register_parameter("g" if log_scale is None else "s", nn.Parameter(torch.empty_like(norms)))
        self.set_g(norms)

    def gain(self) -> Tensor:
        """g, [out, 1, ...]."""
        return self.g if self.log_scale is None else torch.exp(self.log_scale * self.s)

    def scale(self) -> Tensor:
        """g / |v|, [out, 1, ...]: w is this times v."""
        return self.gain() / unit_norms(self.v)

    def forward(self) -> Tensor:
        if one_weight_norm is None or torch.compiler.is_compiling():
            return self.v * self.scale()  # plain operations, which Inductor can fuse
        # The same in fewer operations: small networks are bound by overhead.
        w: Tensor = one_weight_norm(self.v, self.gain(), 0)
        return w

    def gradients(self, of_w: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Each parameter with the gradient that a gradient of w [out, in, ...] means for it (eq. 3)."""
        norms, gain = unit_norms(self.v), self.gain()
        of_gain = (of_w * self.v).sum(tuple(range(1, of_w.dim())), keepdim=True) / norms
        of_v = (of_w - self.v * (of_gain / norms)) * (gain / norms)
        if self.log_scale is None:
            return [(self.v, of_v), (self.g, of_gain)]
        return [(self.v, of_v), (self.s, of_gain * self.log_scale * gain)]

    @torch.no_grad()
    def set_g(self, g: Tensor) -> None:
        """Set g from [out] or [out, 1, ...]. ValueError: g <= 0 under a log-scale."""
        if self.log_scale is None:
            self.g.copy_(g.reshape(self.g.shape))
            return
        if not bool((g > 0).all()):
            raise ValueError("a log-scale g is positive: it cannot hold a unit with g <= 0")
        self.s.copy_((g.log() / self.log_scale).reshape(self.s.shape))

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out]."""
        self.set_g(scale * unit_norms(self.v).view(-1))


Weight = Direct | FixedGain | Projected | SpectralNorm | Normalized
