"""The last K frames of each lane, which the network is asked about; zero before a `first`."""

from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_rl.agents.accelerate import accelerated
from wn_rl.agents.transfer import Transfer
from wn_rl.envs.base import EnvironmentSpec, Step


class Stacks(Protocol):
    """frames: [E, K, *O] on the network's device, always the same tensor."""

    frames: Tensor

    def push(self, step: Step) -> None:
        """Append the newest frames and drop the oldest; where the step is `first`, earlier frames become zero."""
        ...


class HostStacks:
    """Stacks in host memory, by numpy, which copies little arrays in a fraction of torch's time."""

    def __init__(self, num_envs: int, spec: EnvironmentSpec, stack: int) -> None:
        self.frames = torch.zeros((num_envs, stack, *spec.frame_shape), dtype=getattr(torch, spec.dtype))
        self._array: NDArray[Any] = self.frames.numpy()

    def push(self, step: Step) -> None:
        """As `Stacks.push`."""
        if self._array.shape[1] > 1:
            self._array[:, :-1] = self._array[:, 1:]
        if step.first.any():
            self._array[step.first] = 0
        self._array[:, -1] = step.observation


class DeviceStacks:
    """Stacks on a device, which only the newest frames travel to."""

    def __init__(
        self, num_envs: int, spec: EnvironmentSpec, stack: int, device: torch.device, accelerate: str
    ) -> None:
        shape = (num_envs, stack, *spec.frame_shape)
        self.frames = torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=device)
        self._transfer = Transfer(device)
        self._append = accelerated(self._append_received, accelerate)

    def push(self, step: Step) -> None:
        """As `Stacks.push`."""
        self._transfer.send([torch.from_numpy(step.observation), torch.from_numpy(step.first)])
        self._append()

    def _append_received(self) -> None:
        newest, first = self._transfer.receive(len(self.frames))
        if self.frames.shape[1] > 1:
            later = self.frames[:, 1:]
            self.frames[:, :-1].copy_(later.masked_fill(first.view(-1, *[1] * (later.dim() - 1)), 0))
        self.frames[:, -1].copy_(newest)


def make_stacks(
    num_envs: int, spec: EnvironmentSpec, stack: int, device: torch.device, accelerate: str = "eager"
) -> Stacks:
    """Stacks of zeros for a network on this device."""
    if device.type == "cpu":
        return HostStacks(num_envs, spec, stack)
    return DeviceStacks(num_envs, spec, stack, device, accelerate)
