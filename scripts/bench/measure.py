"""How figures are taken: configs to measure, rows of results, and workers that take turns in processes apart."""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro

from wn_rl.agents.accelerate import set_tf32
from wn_rl.config import Config, EvaluationConfig, OptimizerConfig
from wn_rl.machine import num_cores
from wn_rl.registry import PRESETS

Name = TypeVar("Name")
Section = Literal["updates", "emulators", "peers", "memory"]
# Between copies of the target there is a whole number of rounds, so that no round is split.
LEARNING = {"replay_capacity": 50_000, "replay_start": 4_096, "target_period": 64_000}


@dataclass(frozen=True)
class Options:
    """Measure the sections one after another; the results of other sections are kept."""

    sections: tyro.conf.Positional[tuple[Section, ...]] = ()
    """Sections to measure; none: all that this machine can measure."""
    out: Path = Path("docs/benchmarks.json")
    """Results, a .json file. The page is written beside it as Markdown."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    repetitions: int = 3
    """Measurements of each figure. An update is timed 25 times in each, a loop of peers three times."""
    seconds: float = 10
    """Length of one measurement of a whole loop."""


@dataclass(frozen=True)
class Row:
    """A line of a table: what was measured, and under the heading of each result the values of its repetitions."""

    what: dict[str, Any]
    results: dict[str, list[float]]


def config_of(
    preset: str, game: str, device: str, precision: str = "float32", learning: Any = LEARNING, **changes: Any
) -> Config:
    """A preset for measuring: one learning rate, random play until replay start, no evaluation, no end."""
    config: Config = PRESETS[preset](game)
    changed = {"epsilon_start": 1.0, "epsilon_end": 0.1, "epsilon_steps": 1, "precision": precision, **learning}
    return dataclasses.replace(
        config,
        steps=10**9,
        device=device,
        optimizer=OptimizerConfig(learning_rate=1e-4),
        learning=dataclasses.replace(config.learning, **changed),
        **{
            "torch_threads": config.torch_threads or num_cores(),
            "evaluation": EvaluationConfig(period=0),
            **changes,
        },
    )


def seconds_of(function: Callable[[], object], calls: int = 1) -> float:
    """Mean seconds of this number of calls."""
    on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    synchronize: Callable[[], None] = torch.cuda.synchronize if on_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    synchronize()
    return (time.perf_counter() - start) / calls


def matrix_rate(precision: str, device: str, threads: int, repetitions: int = 20) -> float:
    """The maximum rate of a large square matrix product, in FLOP/s: the limit of arithmetic."""
    torch.set_num_threads(threads)
    set_tf32(precision == "tf32", torch.device(device))
    size, dtype = 2048 if device == "cpu" else 8192, torch.bfloat16 if precision == "bfloat16" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    seconds_of(lambda: matrix @ matrix, 5)  # warm-up
    return 2 * size**3 / min(seconds_of(lambda: matrix @ matrix) for _ in range(repetitions))


def in_turns(workers: Mapping[Name, tuple[Any, ...]], turns: int, seconds: float) -> dict[Name, list[Any]]:
    """What workers (function and arguments), each in a process of its own, count in their turns of this length.

    The others wait meanwhile, so that the machine's noise affects all of them alike.

    A worker is called with a connection and its arguments. It sends something when it is ready; then, again and
    again, it receives the seconds of a turn and sends what it has counted.

    Raises:
        EOFError: a worker has failed; it has printed why.
    """
    # A fresh interpreter for each process: no state of this one, CUDA's included, reaches what is measured.
    spawn = multiprocessing.get_context("spawn")
    connections: dict[Name, Connection] = {}
    results: dict[Name, list[Any]] = {name: [] for name in workers}
    with contextlib.ExitStack() as stack:
        for name, (worker, *arguments) in workers.items():
            connections[name], theirs = spawn.Pipe()
            child = spawn.Process(target=worker, args=(theirs, *arguments))
            child.start()
            stack.callback(child.join)
            stack.callback(child.kill)
            theirs.close()  # the child now has the only copy, so that its end closes the pipe
            connections[name].recv()  # one starts after the other: spinning threads would slow each other down
        for name in list(workers) * turns:
            connections[name].send(seconds)
            results[name].append(connections[name].recv())
    return results
