"""The sections of the benchmark page: each is a function of the options that yields its rows."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import workers
from bench.measure import Options, Row, config_of, in_turns, matrix_rate
from wn_rl.agents.experiment import make_online_network, make_training_environments
from wn_rl.config import Config, EnvironmentConfig
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.machine import GIGABYTE, num_cores
from wn_rl.nn import fold
from wn_rl.registry import PRESETS

GAMES = ("breakout", "enduro", "seaquest", "space_invaders")  # of emulators
UPDATES = (("laptop", 16, 2), ("minatar", 16, 10))  # preset, lanes, and rounds in one measurement
UPDATES_ON_CUDA = (("fast", 64, 2),)
TURNS_OF_UPDATES = 25  # in a repetition: parameterizations differ by less than one turn from the next
TURNS_OF_PEERS = 3  # in a repetition
PEERS = (("laptop", "breakout"), ("laptop", "seaquest"), ("minatar", "breakout"), ("minatar", "space_invaders"))
LANES_OF_PEERS = (1, 64)
SB3 = "SB3 DQN, float32"  # the loop that all others are compared with
LOOPS = {  # worker, parameterization, precision and mode
    SB3: (workers.stable_baselines3, "normal", "float32", "eager"),
    "ours, normal, float32": (workers.ours, "normal", "float32", "eager"),
    "ours, weight_norm, float32": (workers.ours, "weight_norm", "float32", "eager"),
    "ours, normal, bfloat16": (workers.ours, "normal", "bfloat16", "eager"),
    "ours, normal, float32, compile": (workers.ours, "normal", "float32", "compile"),
    "ours, normal, bfloat16, compile": (workers.ours, "normal", "bfloat16", "compile"),
}

Loop = tuple[int, str]  # lanes, name


def updates(options: Options) -> Iterator[Row]:
    """Time of one update at batch 64 on rotating batches of a real replay, drawing and gathering included."""
    on_cuda = options.device != "cpu"
    for preset, lanes, rounds in UPDATES_ON_CUDA if on_cuda else UPDATES:
        for precision in ("bfloat16", "tf32", "float32") if on_cuda else ("float32", "bfloat16"):
            base = config_of(preset, "breakout", options.device, precision, num_envs=lanes)
            yield from _updates(base, options.repetitions, rounds)


def _updates(base: Config, repetitions: int, rounds: int) -> Iterator[Row]:
    """Rows of one network and precision. rounds: those in one measurement.

    Each repetition is a process of its own: ratios differ from process to process, by up to two hundredths.
    """
    precision, threads = base.learning.precision, base.torch_threads
    limit = 1e6 * flop_of_update(base) / matrix_rate(precision, base.device, threads)
    modes: list[Any] = ["eager", "compile"] if base.device == "cpu" else ["eager", "compile", "cuda_graph"]
    configs = {
        (mode, layers): dataclasses.replace(base, accelerate=mode, parameterization=layers)
        for mode, layers in itertools.product(modes, ("normal", "weight_norm"))
    }
    worker, turns = (workers.updates, configs, rounds), list[dict[Any, float]]()
    for _ in range(repetitions):
        turns += in_turns({0: worker}, TURNS_OF_UPDATES, 0)[0]
    for mode, layers in configs:
        what = {"network": base.network.name, "threads": threads, "precision": precision, "accelerate": mode}
        times = [1e6 * turn[mode, layers] for turn in turns]
        results = {"microseconds": times, "ratio to the products' time": [time / limit for time in times]}
        if layers != "normal":
            results["ratio to normal"] = [turn[mode, layers] / turn[mode, "normal"] for turn in turns]
        yield Row({**what, "parameterization": layers}, results)


def flop_of_update(config: Config) -> int:
    """Floating-point operations of an update's products: forward and backward, and the target's forward."""
    spec = _spec_of(config)
    network = fold(make_online_network(config, spec))
    size = config.learning.batch_size, config.network.stack, *spec.frame_shape
    states = torch.zeros(size, dtype=getattr(torch, spec.dtype))
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            network(states)
        network(states).sum().backward()
    return int(counter.get_total_flops())


def _spec_of(config: Config) -> EnvironmentSpec:
    environments = make_training_environments(dataclasses.replace(config, num_envs=1))
    environments.close()
    return environments.spec


def emulators(options: Options) -> Iterator[Row]:
    """Emulator frames a second under random play, by lanes and processes."""
    for game in GAMES:
        jobs = {}
        for lanes, processes in ((1, 0), (64, 1), (64, num_cores())):
            environment = EnvironmentConfig(processes=processes)
            config = config_of("paper", game, options.device, num_envs=lanes, environment=environment)
            jobs[lanes, processes] = workers.emulator, config
        for (lanes, processes), turns in in_turns(jobs, options.repetitions, options.seconds / 4).items():
            yield Row({"game": game, "lanes": lanes, "processes": processes}, {"frames/s": turns})


def peers(options: Options) -> Iterator[Row]:
    """Steps a second of whole training loops: ours beside Stable-Baselines3's DQN at the same work."""
    on_cuda = options.device != "cpu"
    for preset, game in PEERS[:1] if on_cuda else PEERS:
        loops = {}
        for lanes, name in itertools.product(LANES_OF_PEERS, LOOPS):
            worker, layers, precision, mode = LOOPS[name]
            if not (on_cuda and mode == "compile"):  # a CUDA graph is compiled already
                mode = "cuda_graph" if on_cuda else mode
                changes: Any = {"num_envs": lanes, "parameterization": layers, "accelerate": mode}
                loops[lanes, name] = worker, config_of(preset, game, options.device, precision, **changes)
        results = in_turns(loops, TURNS_OF_PEERS * options.repetitions, options.seconds / TURNS_OF_PEERS)
        for lanes, name in loops:
            for one, other in zip(results[lanes, name], results[lanes, SB3], strict=True):
                require_equal_work(one, other)
        rates = {loop: [turn["steps"] / turn["seconds"] for turn in turns] for loop, turns in results.items()}
        yield from rates_and_ratios(rates, {"suite": PRESETS[preset](game).suite, "game": game})


def rates_and_ratios(rates: dict[Loop, list[float]], what: dict[str, Any]) -> Iterator[Row]:
    """Steps a second of each loop, and ratios within a turn to SB3 with the same number of lanes and with one."""
    for (lanes, name), values in rates.items():
        others = {"ratio to SB3": rates[lanes, SB3]} if name != SB3 else {}
        if name != SB3 and lanes != 1:
            others["ratio to SB3 with one lane"] = rates[1, SB3]  # as most of its users run it
        results = {"steps/s": values}
        for other, theirs in others.items():
            results[other] = [value / their for value, their in zip(values, theirs, strict=True)]
        yield Row({**what, "lanes": lanes, "loop": name}, results)


def require_equal_work(one: dict[str, Any], other: dict[str, Any]) -> None:
    """AssertionError unless both loops had one size of network, one number of threads and lanes, one ratio."""
    for loop in (one, other):
        ahead = loop["steps"] - loop["steps_per_update"] * loop["updates"]
        assert abs(ahead) <= 2 * max(loop["lanes"], loop["steps_per_update"]), loop
    for same in ("num_parameters", "torch_threads", "lanes", "steps_per_update"):
        assert one[same] == other[same], (same, one, other)


def memory(options: Options) -> Iterator[Row]:
    """Resident bytes of a full replay of Atari; SB3's is measured small and scaled."""
    scaled = "SB3, 1,000,000 steps (20,000 measured, times 50; memory-saving form)"
    for name, make_replay, steps in (
        ("ours, 1,000,000 steps", workers.full_replay, 1_000_000),
        (scaled, workers.full_sb3_replay, 20_000),
    ):
        [turn] = in_turns({0: (workers.replay_bytes, make_replay, steps)}, 1, 0)[0]
        gigabytes = turn["bytes"] * (1_000_000 // steps) / GIGABYTE
        frames = 84 * 84 * 1e6 / GIGABYTE
        yield Row({"replay": name}, {"GB": [gigabytes], "ratio to the frames alone": [gigabytes / frames]})


SECTIONS: dict[str, Callable[[Options], Iterator[Row]]] = {
    section.__name__: section for section in (updates, emulators, peers, memory)
}
