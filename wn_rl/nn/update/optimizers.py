"""Optimizers by name: Adamax in torch's form and in the authors', and the RMSProp of Mnih et al. 2015.

They update with multi-tensor operations, never read a number back from a GPU, and keep only tensors
that exist after the first step: a CUDA graph can capture every later one, and torch.compile can fuse it.
torch.optim has no form of Adamax that is all of this on a CPU too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wn_rl.nn import private_torch as private
from wn_rl.nn.layers import named_layers
from wn_rl.registry import OPTIMIZERS

Tensors = list[Tensor]

Betas = tuple[float, float]

BETAS = (0.5, 0.999)  # Salimans & Kingma, section 5.4: Adamax with momentum 0.5
NUMBERS_READ_ON = ("cpu",)  # devices where reading a tensor's number waits for nothing


class MultiTensorOptimizer(Optimizer, ABC):
    """One update of all parameters at once; a subclass says which buffers it keeps and what the update is."""

    buffers: tuple[str, ...]  # state of each parameter, in its shape and at first zero

    @staticmethod
    @abstractmethod
    def update(parameters: Tensors, gradients: Tensors, buffers: list[Tensors], settings: dict[str, Any]) -> None:
        """Change parameters and buffers in place. settings: the parameter group's, its tensors included."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, without a wrapper whose first call imports torch's compiler: more than a second."""
        private.add_param_group(self, param_group)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of the parameters that have a gradient; returns the closure's loss where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._apply(group, parameters, [parameter.grad for parameter in parameters])
        return loss

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """`step` with the gradients of all parameters given, in order: for loops that count microseconds.

        torch wraps every `step` in hooks; this has none, and no parameter's grad is touched.
        """
        given = iter(gradients)
        for group in self.param_groups:
            parameters = group["params"]
            self._apply(group, parameters, [next(given) for _ in parameters])

    def make_buffers(self, parameters: Iterable[Tensor]) -> None:
        """Give these parameters their state, where they have none yet."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in self.buffers}

    @torch.no_grad()
    def _apply(self, group: dict[str, Any], parameters: Tensors, gradients: Tensors) -> None:
        if not parameters:
            return
        self.make_buffers(parameters)
        buffers = [[self.state[parameter][name] for parameter in parameters] for name in self.buffers]
        settings = {name: value for name, value in group.items() if name != "params"}
        self.update(parameters, gradients, buffers, settings)


class Adamax(MultiTensorOptimizer):
    """Adamax in torch's form (Kingma & Ba 2014, algorithm 2), beta1 .5 as in Salimans & Kingma, section 5.4.

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g| + eps);  p <- p - lr / (1 - b1^t) m / u

    t counts the steps of the parameter group. Equal to torch.optim.Adamax but for rounding.
    """

    buffers = "mean", "maximum"

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: Betas = BETAS, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch: groups added later count their own steps."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("decay", next(iter(group["params"]), torch.empty(())).new_ones(()))  # b1^t

    @staticmethod
    def update(parameters: Tensors, gradients: Tensors, buffers: list[Tensors], settings: dict[str, Any]) -> None:
        means, maxima = buffers
        beta1, beta2 = settings["betas"]
        decay = settings["decay"].mul_(beta1)
        private.foreach_lerp_(means, gradients, 1 - beta1)
        magnitudes = private.foreach_abs(gradients)
        private.foreach_add_(magnitudes, settings["eps"])
        private.foreach_mul_(maxima, beta2)
        private.foreach_maximum_(maxima, magnitudes)
        if decay.device.type in NUMBERS_READ_ON and not torch.compiler.is_compiling():
            # With the rate as a number there is one pass less over all parameters.
            rate = float(settings["lr"]) / (1 - float(decay))
            private.foreach_addcdiv_(parameters, means, maxima, value=-rate)
        else:
            divisors = private.foreach_mul(maxima, (1 - decay) / settings["lr"])
            private.foreach_addcdiv_(parameters, means, divisors, value=-1)


def _descend(parameters: Tensors, directions: Tensors, divisors: Tensors, rate: float | Tensor) -> None:
    """p <- p - rate d / divisor. It writes to the divisors where the rate is a tensor (`anneal`)."""
    if isinstance(rate, Tensor):
        private.foreach_mul_(divisors, 1 / rate)
        rate = 1.0
    private.foreach_addcdiv_(parameters, directions, divisors, value=-rate)


class AuthorsAdamax(MultiTensorOptimizer):
    """Adamax as in the authors' code (openai/weightnorm, lasagne/nn.py): no bias correction.

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g|);  p <- p - lr m / (u + eps)
    """

    buffers = "mean", "maximum"

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: Betas = BETAS, eps: float = 1e-6) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @staticmethod
    def update(parameters: Tensors, gradients: Tensors, buffers: list[Tensors], settings: dict[str, Any]) -> None:
        means, maxima = buffers
        beta1, beta2 = settings["betas"]
        private.foreach_lerp_(means, gradients, 1 - beta1)
        private.foreach_mul_(maxima, beta2)
        private.foreach_maximum_(maxima, private.foreach_abs(gradients))
        divisors = private.foreach_add(maxima, settings["eps"])
        _descend(parameters, means, divisors, settings["lr"])


class CenteredRMSProp(MultiTensorOptimizer):
    """The RMSProp of Mnih et al. 2015 (NeuralQLearner.lua:266-277): centred, eps in the root, no momentum.

    m <- a m + (1 - a) g;  n <- a n + (1 - a) g^2;  p <- p - lr g / sqrt(n - m^2 + eps)
    """

    buffers = "mean", "square"

    def __init__(self, params: Iterable[nn.Parameter], lr: float, decay: float = 0.95, eps: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps})

    @staticmethod
    def update(parameters: Tensors, gradients: Tensors, buffers: list[Tensors], settings: dict[str, Any]) -> None:
        means, squares = buffers
        fresh = 1 - settings["decay"]
        private.foreach_lerp_(means, gradients, fresh)
        private.foreach_mul_(squares, settings["decay"])
        private.foreach_addcmul_(squares, gradients, gradients, value=fresh)
        divisors = private.foreach_add(squares, settings["eps"])
        private.foreach_addcmul_(divisors, means, means, value=-1)
        private.foreach_sqrt_(divisors)
        _descend(parameters, gradients, divisors, settings["lr"])


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> MultiTensorOptimizer:
    """The named optimizer. ValueError: an unknown name, or a learning rate that is not positive."""
    make: Callable[[list[nn.Parameter], float], MultiTensorOptimizer] = OPTIMIZERS[name]
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"the learning rate must be a positive number, not {learning_rate}")
    return make(list(parameters), learning_rate)


@torch.no_grad()
def relative_steps(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """How far the last update moved each layer's trained v: "relative_step/<layer>" (0-d), for an Adamax.

    It is the root mean square of the step over that of v. Layers that had no update yet are left out.
    """
    found: dict[str, Tensor] = {}
    group = optimizer.param_groups[0]
    correction = 1 - group["decay"] if isinstance(optimizer, Adamax) else 1
    for name, layer in named_layers(module):
        v = layer.weight.v
        state = optimizer.state.get(v, {})
        if "maximum" in state:
            step = state["mean"] / (state["maximum"] + group["eps"])
            found[f"relative_step/{name}"] = group["lr"] / correction * step.norm() / v.norm()
    return found


def anneal(optimizer: Optimizer) -> None:
    """Keep the learning rate in a tensor from now on, so that it may change inside a CUDA graph."""
    for group in optimizer.param_groups:
        # float64: in float32 a rate stops falling where a step is below its rounding.
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64, device=group["params"][0].device)


def optimizer_tree(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's tensors by parameter number and by group, with string keys; settings are the config's."""
    state = optimizer.state  # not `state_dict`, which imports torch's compiler too
    return {
        "parameters": {
            str(number): dict(state[p]) for number, p in enumerate(_parameters(optimizer)) if p in state
        },
        "groups": {
            str(number): {name: value for name, value in group.items() if isinstance(value, Tensor)}
            for number, group in enumerate(optimizer.param_groups)
        },
    }


def load_optimizer_tree(optimizer: Optimizer, tree: dict[str, Any]) -> None:
    """Put tensors back that `optimizer_tree` gave; those that are there already stay where they are."""
    parameters = _parameters(optimizer)
    for number, tensors in tree["parameters"].items():
        parameter = parameters[int(number)]
        for name, value in tensors.items():
            optimizer.state[parameter].setdefault(name, torch.empty_like(parameter)).copy_(value)
    for number, tensors in tree["groups"].items():
        for name, value in tensors.items():
            optimizer.param_groups[int(number)][name].copy_(value)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
