"""The end of an update: from the gradients of a loss to the next weights."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from wn_rl.nn.layers import bound_v
from wn_rl.nn.optimizers import MultiTensorOptimizer


class UpdateStep(Protocol):
    """What an update does after backward."""

    leaves: list[Tensor]
    """What the loss is to be differentiated by."""

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Change the network by the gradients of its leaves. A CUDA graph may hold it."""
        ...

    def refresh(self) -> None:
        """Take notice of parameters that were changed by other means."""
        ...


class ParameterStep:
    """Autograd goes back to the parameters; then the optimizer, and the bound on |v| if there is one."""

    def __init__(self, network: nn.Module, optimizer: MultiTensorOptimizer, max_v_norm: float | None) -> None:
        self.leaves: list[Tensor] = list(network.parameters())
        self._network, self._optimizer, self._max_v_norm = network, optimizer, max_v_norm

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """As `UpdateStep.apply`."""
        self._optimizer.apply(gradients)
        if self._max_v_norm is not None:
            bound_v(self._network, self._max_v_norm)

    def refresh(self) -> None:
        """Nothing is kept beside the parameters."""


def make_step(
    network: nn.Sequential, optimizer: MultiTensorOptimizer, max_v_norm: float | None, *, fuse: bool
) -> UpdateStep:
    """The step of a network whose parameters are the optimizer's.

    fuse: let one Triton kernel do it all, where there is one for this optimizer. `hold_weights` comes before.
    """
    if fuse:
        from wn_rl.nn.fused import FusedAdamax  # Triton comes with torch for CUDA alone

        return FusedAdamax(network, optimizer, max_v_norm)
    return ParameterStep(network, optimizer, max_v_norm)
