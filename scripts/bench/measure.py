"""How figures are taken: configs to measure, rows of results, timing in turns, and processes apart."""

import contextlib
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from wn_rl.config import Config, EvaluationConfig, OptimizerConfig
from wn_rl.registry import PRESETS

Name = TypeVar("Name")
Result = TypeVar("Result")
What = dict[str, str | int | float]
Section = Literal["matrix", "updates", "emulators", "peers", "memory", "cuda_runs", "cuda_together"]

# A fresh interpreter for each process: no state of this one, CUDA's included, reaches what is measured.
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Options:
    """Measure the sections one after another; the results of other sections are kept."""

    sections: tyro.conf.Positional[tuple[Section, ...]] = ()
    """Sections to measure; none: all that this machine can measure."""
    out: Path = Path("docs/benchmarks.json")
    """Results, a .json file. The page is written beside it as Markdown."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    torch_threads: int = 0
    """CPU threads of torch; 0: one for each core. Small networks always run with one."""
    repetitions: int = 3
    """Measurements of each figure. An update is timed 25 times in each, a loop of peers three times."""
    seconds: float = 10
    """Length of one measurement of a whole loop."""
    games: tuple[str, ...] = ("breakout", "enduro", "seaquest", "space_invaders")
    """Games of emulators and cuda_runs."""

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, the values of its repetitions, and a reference to compare them with."""

    what: What
    unit: str
    values: list[float]
    limit: float | None = None  # in the same unit: what arithmetic or bandwidth allows on this machine
    limit_source: str = ""

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)


def config_of(preset: str, game: str, options: Options, learning: Mapping[str, Any], **changes: Any) -> Config:
    """A preset for measuring: one learning rate, random play until replay start, no evaluation, no end."""
    config: Config = PRESETS[preset](game)
    changed = {"epsilon_start": 1.0, "epsilon_end": 0.1, "epsilon_steps": 1, **learning}
    return dataclasses.replace(
        config,
        steps=10**9,
        device=options.device,
        torch_threads=config.torch_threads or options.torch_threads,  # small networks are faster with one
        optimizer=OptimizerConfig(learning_rate=1e-4),
        learning=dataclasses.replace(config.learning, **changed),
        **{"evaluation": EvaluationConfig(period=0), **changes},
    )


def seconds_in_turns(
    functions: Mapping[Name, Callable[[], object]], repetitions: int, calls: int
) -> dict[Name, list[float]]:
    """Seconds per call of each function. Functions take turns, so that noise affects all of them alike.

    Every second repetition runs in reverse order: a function depends on what the one before it left in the caches.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in functions}
    for function in functions.values():  # warm-up: libraries, compilers, captures
        for _ in range(5):
            function()
    for repetition in range(repetitions):
        for name in reversed(list(functions)) if repetition % 2 else functions:
            synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                functions[name]()
            synchronize()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def synchronize() -> None:
    """Wait for the CUDA device, if one is used."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def matrix_rate(dtype: torch.dtype, device: str, repetitions: int = 20) -> float:
    """The maximum rate of a large square matrix product, in FLOP/s: the limit of arithmetic."""
    size = 2048 if device == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(seconds_in_turns({"product": lambda: matrix @ matrix}, repetitions, 1)["product"])


def flop_of(function: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function that is called in a process of its own; it raises what the function raises."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


@contextlib.contextmanager
def process(worker: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Context manager: a process that calls a worker with a connection and the arguments, and the other end of it.

    A process that fails prints its error, and the connection then raises EOFError or BrokenPipeError.
    """
    connection, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=worker, args=(theirs, *arguments))
    child.start()
    theirs.close()  # the child now has the only copy, so that its end closes the pipe
    try:
        yield connection
    finally:
        child.kill()
        child.join()


def measure_in_turns(
    loops: Mapping[Name, tuple[Callable[..., None], Config]], turns: int, seconds: float
) -> dict[Name, list[dict[str, Any]]]:
    """What loops (worker, config), each in a process of its own, count in their turns of this length.

    The others wait meanwhile, so that the machine's noise affects all of them alike.
    """
    results: dict[Name, list[dict[str, Any]]] = {name: [] for name in loops}
    with contextlib.ExitStack() as stack:
        connections = {}
        for name, loop in loops.items():  # one after the other: spinning threads would slow each other down
            connections[name] = stack.enter_context(process(*loop))
            connections[name].recv()
        for _ in range(turns):
            for name, connection in connections.items():
                connection.send(seconds)
                results[name].append(connection.recv())
    return results
