"""What every section shares: timing in turns, rows of results, the rate of matrix products."""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from wn_rl.config import Config, to_json

Name = TypeVar("Name")

SB3 = "SB3 DQN, float32"  # the loop that all others are held against


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
    """Seconds of a call, by name: each repetition times every function once, so that noise meets all alike.

    Every other one begins with the last: what a function finds in the caches is left by the one before it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():  # warm-up: libraries, compilers, captures
        for _ in range(5):
            function()
    in_order = list(functions.items())
    for repetition in range(repetitions):
        for name, function in reversed(in_order) if repetition % 2 else in_order:
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
    with _Worker(worker, settings) as process:
        result: dict[str, Any] = process.answer()
        return result


def measure_in_turns(
    loops: Mapping[Name, tuple[str, Mapping[str, Any]]], turns: int, seconds: float
) -> dict[Name, list[dict[str, Any]]]:
    """What loops (worker, settings) count in their turns of so many seconds: noise of a machine meets all alike.

    Each is a process with a clock of `wn_rl.bench.clock.Turns`, which waits while others have their turn.

    Raises:
        RuntimeError: as `measure_apart`.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, loop in loops.items():  # one after the other: threads that spin would slow each other down
            workers[name] = stack.enter_context(_Worker(*loop))
            workers[name].answer()  # "ready"
        results: dict[Name, list[dict[str, Any]]] = {name: [] for name in loops}
        for _ in range(turns):
            for name, worker in workers.items():
                worker.say(f"{seconds}\n")
                results[name].append(worker.answer())
        for name, worker in workers.items():
            worker.end()
            work = worker.answer()
            results[name] = [{**result, **work} for result in results[name]]
        return results


class _Worker:
    """A function of `wn_rl.bench.workers` in a process; those with a clock of turns are told when to go on."""

    def __init__(self, worker: str, settings: Mapping[str, Any]) -> None:
        self._name = worker
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  __exit__ closes it
        command = [sys.executable, "-m", "wn_rl.bench.workers", worker, json.dumps(settings)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._errors, self._process:  # close what is open, and wait
            pass

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def answer(self) -> Any:
        """The next line of JSON; RuntimeError where the process ended instead."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            with contextlib.suppress(json.JSONDecodeError):  # what libraries print
                return json.loads(line)
        self._errors.seek(0)
        raise RuntimeError(f"the worker {self._name} failed: {self._errors.read()[-2000:]}")


def compile_first(configs: Iterable[Config]) -> None:
    """Let torch compile a round of each config, all at once in processes of their own, and keep it in its cache.

    Else the processes that measure would compile one after another, or all of them the same. Eager ones are left.
    """
    compiled = [config for config in configs if config.accelerate != "eager"]
    unique = dict.fromkeys(dataclasses.replace(config, accelerate="compile") for config in compiled)
    measure_together("compile_round", [{"config": to_json(config)} for config in unique])


def measure_together(worker: str, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same at once for each of the settings, as runs that share a machine."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(settings)) as pool:
        return list(pool.map(lambda each: measure_apart(worker, each), settings))
