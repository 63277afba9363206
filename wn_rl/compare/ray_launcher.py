"""Runs on a Ray cluster, whose machines share the folder of the runs.

A run is a Ray task that holds its process. If the machine or the worker dies, the task ends with an error. The
supervisor tries it again, as any run that failed, and Ray starts it elsewhere, where it is restored from the last
checkpoint in the run's folder.
"""

import dataclasses
import importlib.util
import logging
import os
import socket
import time
from typing import Any

from wn_rl.compare.grid import Run, prepare
from wn_rl.compare.launch import POLL_SECONDS, Ended, Slot, start_child
from wn_rl.errors import UserError, in_one_line
from wn_rl.registry import IMPORTS

_CONNECT_SECONDS = 10.0
_LOCK_SECONDS = 300.0  # how long a task waits for a process of the run that has outlived its worker


def train_here(run: Run, slot: Slot) -> int:
    """The task: train in a child process to its end and return its exit code. A cancelled task has it save."""
    until = time.monotonic() + _LOCK_SECONDS
    while not prepare(run) and time.monotonic() < until:  # the process of a worker that died saves before it ends
        time.sleep(POLL_SECONDS)
    child = start_child(run, slot)
    try:
        while child.poll() is None:  # a cancelled task is interrupted between two looks, not in a wait
            time.sleep(POLL_SECONDS)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    return child.returncode


class RayLauncher:
    """Tasks of a Ray cluster.

    The cluster is that of RAY_ADDRESS, or else one on this machine. device: auto, cpu or cuda; Ray decides which
    GPU a run gets. threads: cores that a run takes, those of its emulators included. gpu_share: the part of a GPU
    that it takes; None: all of one, where the device is CUDA.

    Raises:
        UserError: Ray is not installed, the cluster could not be reached, or it lacks what a run needs.
    """

    def __init__(self, device: str, *, threads: int, gpu_share: float | None) -> None:
        self._ray = _connect()
        gpus = self._ray.cluster_resources().get("GPU", 0.0)
        on_gpu = device == "cuda" or (device == "auto" and (gpus > 0 or gpu_share is not None))
        if on_gpu and not gpus:
            self._ray.shutdown()
            raise UserError("the Ray cluster has no GPU: use --device cpu, without --gpu-share")
        self._slot = Slot("cuda" if on_gpu else "cpu", threads, {IMPORTS: os.environ.get(IMPORTS, "")})
        self._threads, self._share = threads, (gpu_share or 1.0) if on_gpu else 0.0
        self._task = self._ray.remote(train_here).options(num_cpus=threads, num_gpus=self._share, max_retries=0)
        self._runs: dict[Any, Run] = {}  # by the reference of its task

    @property
    def at_once(self) -> int:
        """How many runs the cluster, as it is now, has room for."""
        resources = self._ray.cluster_resources()
        room = [resources.get("CPU", 1.0) / self._threads]
        if self._share:
            room.append(resources.get("GPU", 0.0) / self._share)
        return max(1, int(min(room)))

    def start(self, run: Run) -> None:
        """Hand a run to Ray."""
        there = dataclasses.replace(run, out=run.out.resolve())  # a worker's working directory is its own
        self._runs[self._task.remote(there, self._slot)] = run

    def ended(self) -> list[Ended]:
        """The runs whose tasks have ended, or were lost for good."""
        if not self._runs:
            return []
        done, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        return [self._end_of(reference) for reference in done]

    def stop(self, *, at_once: bool) -> None:
        """Cancel each task: its run saves and ends; or, at once, its worker is killed."""
        for reference in self._runs:
            self._ray.cancel(reference, force=at_once)

    def _end_of(self, reference: Any) -> Ended:
        run = self._runs.pop(reference)
        try:
            return Ended(run, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return Ended(run, 1, (str(error).strip() or type(error).__name__).splitlines()[0])


def _connect() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise UserError('--launcher ray needs Ray: python -m pip install "wn-rl[ray]"')
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:  # Ray itself would try for minutes, and ignore Ctrl-C
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        where = f" at RAY_ADDRESS {address}" if address else ""
        raise UserError(f"no Ray cluster could be reached{where}: {in_one_line(error)}") from error
    return ray
