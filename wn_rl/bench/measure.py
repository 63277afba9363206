"""What every section shares: timing in turns, rows of results, the rate of matrix products."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: what was measured, the values of its repetitions, and a reference to hold them against."""

    what: dict[str, str | int | float]
    unit: str
    values: list[float]
    limit: float | None = None  # in the same unit: what arithmetic or bandwidth allows on this machine
    limit_source: str = ""

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest value."""
        return min(self.values), max(self.values)


def seconds_in_turns(
    functions: Mapping[str, Callable[[], object]], repetitions: int, calls: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of a call, by name: each repetition times every function once, so that noise meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():  # warm-up: libraries, compilers, captures
        for _ in range(5):
            function()
    for _ in range(repetitions):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(calls):
                function()
            synchronize(device)
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(dtype: torch.dtype, device: torch.device, repetitions: int = 20) -> float:
    """The greatest rate of a square matrix product seen here, in FLOP/s: the limit of arithmetic."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    seconds = seconds_in_turns({"product": lambda: matrix @ matrix}, repetitions, 1, device)
    return 2 * size**3 / min(seconds["product"])


def flop_of(function: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def measure_apart(worker: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run a function of `wn_rl.bench.workers` in a process of its own; its result, a dict.

    Raises:
        RuntimeError: the process failed; what it said last is in the message.
    """
    command = [sys.executable, "-m", "wn_rl.bench.workers", worker, json.dumps(settings)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(f"the worker {worker} failed: {finished.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def measure_together(worker: str, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same at once for each of the settings, as runs that share a machine."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(settings)) as pool:
        return list(pool.map(lambda each: measure_apart(worker, each), settings))
