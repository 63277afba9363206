"""The end of an update: from the gradients of a loss to the next weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wn_rl.nn.layers import bound_v, layers_of
from wn_rl.nn.update.optimizers import Adamax, MultiTensorOptimizer
from wn_rl.nn.weights import Projected, SpectralNorm

if TYPE_CHECKING:
    from wn_rl.nn.update.fused import FusedAdamax

KERNEL_ON = ("cuda",)  # devices that Triton is for


class PlainStep:
    """Backward of the weights that layers hold (eq. 3), the optimizer, the bound on |v|, the next held weights.

    In torch's operations, for any optimizer and device. Layers that hold nothing are differentiated by their
    parameters. compiled: let torch.compile fuse all that. leaves: what the loss is to be differentiated by.
    Whoever changes parameters by other means calls `refill_held` next.
    """

    def __init__(
        self, network: nn.Module, optimizer: MultiTensorOptimizer, max_v_norm: float | None, *, compiled: bool
    ) -> None:
        self._network, self._optimizer, self._max_v_norm = network, optimizer, max_v_norm
        self._parameters = list(network.parameters())
        optimizer.make_buffers(self._parameters)  # before anything is compiled or captured
        self._held = [(layer.held, layer.weight) for layer in layers_of(network) if layer.held is not None]
        self._projected = _projected(network)
        inside = {id(parameter) for _, weight in self._held for parameter in weight.parameters()}
        self._others = [parameter for parameter in self._parameters if id(parameter) not in inside]
        self.leaves: list[Tensor] = [leaf for leaf, _ in self._held] + list(self._others)
        self._run = torch.compile(self._update, dynamic=False) if compiled else self._update

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Change the network by the gradients of its leaves. A CUDA graph may hold it."""
        self._run(list(gradients))

    @torch.no_grad()
    def _update(self, gradients: list[Tensor]) -> None:
        self._optimizer.apply(self._of_parameters(gradients) if self._held else gradients)
        if self._max_v_norm is not None:
            bound_v(self._network, self._max_v_norm)
        for projected in self._projected:
            projected.after_update()
        for leaf, weight in self._held:
            leaf.copy_(weight())

    def _of_parameters(self, gradients: list[Tensor]) -> list[Tensor]:
        """The parameters' gradients, in their order, from those of the leaves."""
        of_held, of_others = gradients[: len(self._held)], gradients[len(self._held) :]
        found = dict(zip(self._others, of_others, strict=True))
        for (_, weight), of_w in zip(self._held, of_held, strict=True):
            found |= weight.gradients(of_w.to(weight.v.dtype))
        return [found[parameter] for parameter in self._parameters]


def _projected(network: nn.Module) -> list[Projected | SpectralNorm]:
    """The weights that change themselves after an update."""
    return [layer.weight for layer in layers_of(network) if isinstance(layer.weight, Projected | SpectralNorm)]


def make_step(
    network: nn.Sequential, optimizer: MultiTensorOptimizer, max_v_norm: float | None, *, fuse: bool
) -> "PlainStep | FusedAdamax":
    """The step of a network whose parameters are the optimizer's. `hold_weights`, if at all, comes before.

    fuse: compile it, or let one Triton kernel do it all where there is one for this optimizer and device.
    """
    group = optimizer.param_groups[0]
    has_kernel = isinstance(optimizer, Adamax) and group["params"][0].device.type in KERNEL_ON
    if fuse and has_kernel and not isinstance(group["lr"], Tensor) and not _projected(network):
        from wn_rl.nn.update.fused import FusedAdamax

        return FusedAdamax(network, optimizer, max_v_norm)
    return PlainStep(network, optimizer, max_v_norm, compiled=fuse)
