"""From host memory to a device, without waiting for what the device is at."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Transfer:
    """Sets of tensors on their way to a device: through pinned memory, to tensors that stay in place.

    There is one set for each number of rows (the length of the set's tensors), and a CUDA graph may read it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[int, list[Tensor]] = {}
        self._received: dict[int, list[Tensor]] = {}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Begin to copy a set in host memory; the device works on meanwhile."""
        size = len(tensors[0])
        if size not in self._pinned:
            pin = self._device.type == "cuda"
            self._pinned[size] = [torch.empty(x.shape, dtype=x.dtype, pin_memory=pin) for x in tensors]
            self._received[size] = [torch.empty(x.shape, dtype=x.dtype, device=self._device) for x in tensors]
        if self._copied is not None:
            self._copied.synchronize()  # of the last copy alone: the device may be at work
        for source, pinned, received in zip(tensors, self._pinned[size], self._received[size], strict=True):
            pinned.copy_(source)
            received.copy_(pinned, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))  # by default that of another device

    def receive(self, size: int) -> list[Tensor]:
        """The last set sent of so many rows, on the device."""
        return self._received[size]
