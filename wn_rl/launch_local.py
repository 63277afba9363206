"""The runs of a comparison on this machine, so many at once."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from wn_rl import launch_child
from wn_rl.cores import num_cores
from wn_rl.errors import UserError
from wn_rl.compare.launch import Ended
from wn_rl.compare.grid import Run


@dataclass(frozen=True)
class Slot:
    """A place for one run. gpu: what it sees as CUDA_VISIBLE_DEVICES; None: all that its parent sees."""

    device: str
    gpu: str | None = None


@dataclass(frozen=True)
class _Child:
    run: Run
    slot: Slot
    process: subprocess.Popen[bytes]


class LocalLauncher:
    """Child processes of this one, each in a slot, with an equal share of the cores."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._cores = max(1, num_cores() // len(slots))
        self._free = list(slots)
        self._children: list[_Child] = []

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def start(self, run: Run) -> None:
        """Start a process in the first free slot."""
        slot = self._free[0]
        environment = {} if slot.gpu is None else {"CUDA_VISIBLE_DEVICES": slot.gpu}
        process = launch_child.start(run, slot.device, self._cores, environment)
        self._free.pop(0)
        self._children.append(_Child(run, slot, process))

    def ended(self) -> list[Ended]:
        """The runs whose processes have ended; their slots are free again."""
        over = [child for child in self._children if child.process.poll() is not None]
        self._children = [child for child in self._children if child not in over]
        self._free += [child.slot for child in over]
        return [Ended(child.run, child.process.returncode) for child in over]

    def stop_run(self, run: Run) -> None:
        """SIGTERM to the process of one run, at which it saves."""
        for child in self._children:
            if child.run == run:
                child.process.send_signal(signal.SIGTERM)

    def stop(self, *, at_once: bool) -> None:
        """SIGTERM to each, at which a run saves; or SIGKILL, which it survives too, but for its last steps."""
        for child in self._children:
            child.process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)


def local_slots(
    device: str, *, threads: int, workers: int | None = None, gpu_share: float | None = None
) -> list[Slot]:
    """The slots of this machine for runs with so many torch threads.

    workers: how many; None: as many as the cores have threads for, and the GPUs have room for. gpu_share: the
    part of a GPU that a run takes; None: all of it.

    Raises:
        UserError: the device cannot be had.
    """
    from wn_rl.machine import resolve_device

    resolved = resolve_device(device)
    most = workers or max(1, num_cores() // threads)
    if resolved.type == "cpu":
        if gpu_share is not None:
            raise UserError("--gpu-share needs a CUDA device, and the runs use the CPU")
        return [Slot("cpu")] * most
    gpus = [visible_gpus()[resolved.index or 0]] if ":" in device else visible_gpus()
    return [Slot("cuda", gpu) for _ in range(runs_per_gpu(gpu_share or 1.0)) for gpu in gpus][:most]


def runs_per_gpu(share: float) -> int:
    """How many runs of a share have room on one GPU.

    >>> [runs_per_gpu(share) for share in (1, 0.5, 0.3, 1 / 3, 0.1)]
    [1, 2, 3, 3, 10]
    """
    return int(1 / share + 1e-9)


def visible_gpus() -> list[str]:
    """The names of the CUDA devices that this process sees, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return names[:count] if names else [str(index) for index in range(count)]
