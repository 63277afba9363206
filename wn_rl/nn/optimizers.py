"""Optimizers by name: Adamax in torch's form and in the authors', and the RMSProp of Mnih et al. 2015.

They update with multi-tensor operations, never read a number back from the device, and keep only tensors
that exist after the first step: a CUDA graph can capture every later one.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wn_rl.nn.layers import look_up


def _tensors_to_update(
    optimizer: Optimizer, group: dict[str, Any], *buffers: str
) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """Parameters that have a gradient, the gradients, and each buffer's state tensors (at first zero)."""
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    for parameter in parameters:
        if not optimizer.state[parameter]:
            optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in buffers}
    states = [[optimizer.state[parameter][name] for parameter in parameters] for name in buffers]
    return parameters, [parameter.grad for parameter in parameters], states


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class AuthorsAdamax(Optimizer):
    """Adamax as in the authors' code (openai/weightnorm, lasagne/nn.py): no bias correction.

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g|);  p <- p - lr m / (u + eps)
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; returns the closure's loss where there is one."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            parameters, gradients, (means, maxima) = _tensors_to_update(self, group, "mean", "maximum")
            if parameters:
                torch._foreach_lerp_(means, gradients, 1 - group["betas"][0])
                torch._foreach_mul_(maxima, group["betas"][1])
                torch._foreach_maximum_(maxima, torch._foreach_abs(gradients))
                divisors = torch._foreach_add(maxima, group["eps"])
                torch._foreach_addcdiv_(parameters, means, divisors, -group["lr"])
        return loss


class CenteredRMSProp(Optimizer):
    """The RMSProp of Mnih et al. 2015 (NeuralQLearner.lua:266-277): centred, eps in the root, no momentum.

    m <- a m + (1 - a) g;  n <- a n + (1 - a) g^2;  p <- p - lr g / sqrt(n - m^2 + eps)
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, decay: float = 0.95, eps: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; returns the closure's loss where there is one."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            parameters, gradients, (means, squares) = _tensors_to_update(self, group, "mean", "square")
            if parameters:
                fresh = 1 - group["decay"]
                torch._foreach_lerp_(means, gradients, fresh)
                torch._foreach_mul_(squares, group["decay"])
                torch._foreach_addcmul_(squares, gradients, gradients, fresh)
                divisors = torch._foreach_add(squares, group["eps"])
                torch._foreach_addcmul_(divisors, means, means, -1)
                torch._foreach_sqrt_(divisors)
                torch._foreach_addcdiv_(parameters, gradients, divisors, -group["lr"])
        return loss


def adamax(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    """Adamax in torch's form (Kingma & Ba 2014, bias-corrected), beta1 .5 as in the paper, section 5.4."""
    on_cuda = all(parameter.is_cuda for parameter in parameters)
    return torch.optim.Adamax(parameters, lr=learning_rate, betas=(0.5, 0.999), foreach=True, capturable=on_cuda)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float], Optimizer]] = {
    "adamax": adamax,
    "adamax_authors": AuthorsAdamax,
    "rmsprop_centered": CenteredRMSProp,
}


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
    """The named optimizer. ValueError: an unknown name, or a learning rate that is not positive."""
    make = look_up("optimizer", name, OPTIMIZERS)
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"the learning rate must be a positive number, not {learning_rate}")
    return make(list(parameters), learning_rate)
