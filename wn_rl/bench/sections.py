"""The sections of the benchmark page, each a function of the options that gives its rows."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from wn_rl.agents.experiment import make_online_network, make_training_environments
from wn_rl.bench.cuda_sections import cuda_runs, cuda_together
from wn_rl.bench.measure import (
    SB3,
    Row,
    compile_first,
    flop_of,
    matrix_rate,
    measure_apart,
    measure_in_turns,
)
from wn_rl.bench.setups import UNSPLIT, Options, config_of
from wn_rl.config import Config, to_json
from wn_rl.machine import num_cores
from wn_rl.nn import fold
from wn_rl.registry import PRESETS

SB3_WITH_OUR_LAYERS = "SB3 DQN with our layers, weight_norm, float32"
GIGABYTE = 1e9


def matrix(options: Options) -> list[Row]:
    """The rate of matrix products, which other sections hold their figures against."""
    types = [torch.float32, torch.bfloat16]
    return [
        Row({"type": str(kind).removeprefix("torch.")}, "GFLOP/s", [matrix_rate(kind, options.torch_device) / 1e9])
        for kind in types
    ]


TURNS_OF_UPDATES = 25  # in a repetition: parameterizations differ by less than one turn from the next
UPDATES_ON_CUDA = {"replay_capacity": 50_000, "target_period": UNSPLIT}

UpdateArm = tuple[str, str]  # mode of --accelerate, parameterization


def updates(options: Options) -> Iterator[Row]:
    """Time of one update at batch 64 on rotating batches of a real replay, drawing and gathering included."""
    if options.torch_device.type == "cuda":
        yield from _updates(config_of("fast", "breakout", options, learning=UPDATES_ON_CUDA), options, calls=2)
    else:
        yield from _updates(config_of("laptop", "breakout", options, num_envs=16), options, calls=2)
        yield from _updates(config_of("minatar", "breakout", options, num_envs=16), options, calls=10)


def _updates(base: Config, options: Options, calls: int) -> Iterator[Row]:
    """Of one network, a precision after the other. calls: rounds in one measurement.

    Each repetition is a process of its own: ratios differ from process to process, by up to two hundredths.
    """
    device = options.torch_device
    on_cuda = device.type == "cuda"
    torch.set_num_threads(base.torch_threads)
    rates = {"float32": matrix_rate(torch.float32, device), "bfloat16": matrix_rate(torch.bfloat16, device)}
    rates["tf32"] = rates["bfloat16"] / 2
    precisions = ("bfloat16", "tf32", "float32") if on_cuda else ("float32", "bfloat16")
    configs = {precision: _configs_of_arms(base, precision, on_cuda=on_cuda) for precision in precisions}
    if on_cuda:
        compile_first(config for arms in configs.values() for config in arms.values())
    updates_in_a_round = base.num_envs // base.learning.update_period
    flop = flop_of(functools.partial(_plain_update, base))
    for precision, arms in configs.items():
        in_json = {"/".join(arm): to_json(config) for arm, config in arms.items()}
        settings = {"configs": in_json, "turns": TURNS_OF_UPDATES, "calls": calls}
        repetitions = [measure_apart("rounds_in_turns", settings) for _ in range(options.repetitions)]
        seconds = {name: list(itertools.chain(*(each[name] for each in repetitions))) for name in in_json}
        of = "half of bfloat16's, as tf32's," if precision == "tf32" else f"of {precision}"
        source = f"{flop / 1e9:.3g} GFLOP at the matrix rate {of} measured in this run"
        what: dict[str, str | int | float] = {
            "network": base.network.name,
            "threads": base.torch_threads,
            "precision": precision,
        }
        for mode, parameterization in arms:
            each = [1e6 * second / updates_in_a_round for second in seconds[f"{mode}/{parameterization}"]]
            row = {**what, "accelerate": mode, "parameterization": parameterization}
            yield Row(row, "microseconds", each, flop / rates[precision] * 1e6, source)
            if parameterization == "weight_norm":
                pairs = zip(seconds[f"{mode}/weight_norm"], seconds[f"{mode}/normal"], strict=True)
                ratios = [ours / theirs for ours, theirs in pairs]
                yield Row({**row, "parameterization": "weight_norm / normal"}, "ratio", ratios)
    torch.set_num_threads(options.threads)


def _configs_of_arms(base: Config, precision: str, *, on_cuda: bool) -> dict[UpdateArm, Config]:
    """Every mode and parameterization that an update is timed with."""
    modes = ("eager", "compile", "cuda_graph") if on_cuda else ("eager", "compile")
    learning = dataclasses.replace(base.learning, precision=precision)  # type: ignore[arg-type]
    return {
        (mode, parameterization): dataclasses.replace(
            base,
            accelerate=mode,  # type: ignore[arg-type]
            parameterization=parameterization,
            learning=learning,
        )
        for mode, parameterization in itertools.product(modes, ("normal", "weight_norm"))
    }


def _plain_update(config: Config) -> None:
    """The products of one update and no more: forward and backward, and the target's forward."""
    environments = make_training_environments(dataclasses.replace(config, num_envs=1))
    spec = environments.spec
    environments.close()
    network = fold(make_online_network(config, spec))
    size = config.learning.batch_size, config.network.stack, *spec.frame_shape
    states = torch.zeros(size, dtype=getattr(torch, spec.dtype))
    with torch.no_grad():
        network(states)
    network(states).sum().backward()


def emulators(options: Options) -> Iterator[Row]:
    """Emulator frames a second under random play, by lanes and threads."""
    cores = num_cores()
    lanes_and_threads = {(1, 0), (8, 1), (8, cores), (64, cores)}
    for game, (lanes, threads) in itertools.product(options.games, sorted(lanes_and_threads)):
        config = config_of("paper", game, options, num_envs=lanes)
        environment = dataclasses.replace(config.environment, emulator_threads=threads)
        settings = to_json(dataclasses.replace(config, environment=environment))
        results = [
            measure_apart("emulator", {"config": settings, "seconds": options.seconds / 4})
            for _ in range(options.repetitions)
        ]
        for rows, key in (("all", "steps_per_second"), ("no game begins", "steps_per_second_without_start")):
            what: dict[str, str | int | float] = {
                "game": game,
                "lanes": lanes,
                "threads": threads or 1,
                "rows": rows,
            }
            yield Row(what, "frames/s", [4 * result[key] for result in results])


PEERS = (  # preset, game, numbers of lanes
    ("laptop", "breakout", (1, 64)),
    ("laptop", "seaquest", (1, 64)),
    ("minatar", "breakout", (1, 64)),
    ("minatar", "space_invaders", (1, 64)),
)
PEERS_ON_CUDA = PEERS[:1]
LEARNING_OF_PEERS = {"replay_capacity": 50_000, "replay_start": 2_048, "target_period": UNSPLIT}  # whole rounds
TURNS = 3  # of each loop in a repetition

Loop = tuple[int, str]  # lanes, name


def peers(options: Options) -> Iterator[Row]:
    """Steps a second of whole training loops: ours beside Stable-Baselines3's DQN at the same work."""
    on_cuda = options.torch_device.type == "cuda"
    fast: dict[str, Any] = {"accelerate": "cuda_graph"} if on_cuda else {}
    in_bfloat16 = {
        "parameterization": "normal",
        "learning": {**LEARNING_OF_PEERS, "precision": "bfloat16"},
        **fast,
    }
    arms: dict[str, dict[str, Any]] = {
        "ours, normal, float32": {"parameterization": "normal", "learning": LEARNING_OF_PEERS, **fast},
        "ours, weight_norm, float32": {"parameterization": "weight_norm", "learning": LEARNING_OF_PEERS, **fast},
        "ours, normal, bfloat16": in_bfloat16,
    }
    if not on_cuda:  # where rounds are CUDA graphs, they are compiled already
        for name in ("ours, normal, float32", "ours, normal, bfloat16"):
            arms[f"{name}, compile"] = {**arms[name], "accelerate": "compile"}
    for preset, game, numbers_of_lanes in PEERS_ON_CUDA if on_cuda else PEERS:
        loops: dict[Loop, tuple[str, Config]] = {}
        for lanes in numbers_of_lanes:
            configs = {
                name: config_of(preset, game, options, num_envs=lanes, **changes) for name, changes in arms.items()
            }
            loops[lanes, SB3] = "stable_baselines3", configs["ours, normal, float32"]
            loops[lanes, SB3_WITH_OUR_LAYERS] = "sb3_with_our_layers", configs["ours, weight_norm, float32"]
            loops |= {(lanes, name): ("ours", config) for name, config in configs.items()}
        if on_cuda:
            compile_first(config for _, config in loops.values())
        workers = {loop: (worker, {"config": to_json(config)}) for loop, (worker, config) in loops.items()}
        results = measure_in_turns(workers, TURNS * options.repetitions, options.seconds / TURNS)
        for loop, (_, config) in loops.items():
            peer = loop[0], SB3 if config.parameterization == "normal" else SB3_WITH_OUR_LAYERS
            for one, other in zip(results[loop], results[peer], strict=True):
                require_equal_work(one, other)
        rates = {loop: [result["steps_per_second"] for result in each] for loop, each in results.items()}
        yield from rates_and_ratios(rates, {"suite": PRESETS[preset](game).suite, "game": game})


def rates_and_ratios(rates: dict[Loop, list[float]], what: dict[str, str | int | float]) -> Iterator[Row]:
    """Each loop's steps a second, and their ratios within a turn to SB3's with as many lanes and with one."""
    for (lanes, name), each in rates.items():
        row = {**what, "lanes": lanes, "loop": name}
        yield Row(row, "steps/s", each)
        peers = {} if name == SB3 else {"SB3": rates[lanes, SB3]}
        if lanes != 1 and name not in (SB3, SB3_WITH_OUR_LAYERS):  # as most of its users run it
            peers["SB3 with one lane"] = rates[1, SB3]
        for peer, theirs in peers.items():
            ratios = [a / b for a, b in zip(each, theirs, strict=True)]
            yield Row({**row, "loop": f"{name} / {peer}"}, "ratio", ratios)


def require_equal_work(one: dict[str, Any], other: dict[str, Any]) -> None:
    """AssertionError unless both loops had one size of network, one number of threads and lanes, one ratio."""
    for loop in (one, other):
        ahead = loop["steps"] - loop["steps_per_update"] * loop["updates"]
        assert abs(ahead) <= 2 * max(loop["lanes"], loop["steps_per_update"]), loop
    for same in ("num_parameters", "torch_threads", "lanes", "steps_per_update"):
        assert one[same] == other[same], (same, one, other)


def memory(options: Options) -> list[Row]:
    """Resident bytes of a full replay of Atari, every byte written; SB3's measured small and scaled."""
    million = config_of("paper", "breakout", options)
    tenth = config_of("paper", "breakout", options, learning={"replay_capacity": 20_000, "replay_start": 20_000})
    ours = measure_apart("replay_memory", {"config": to_json(million), "seconds": 0})
    theirs = measure_apart("sb3_replay_memory", {"config": to_json(tenth), "seconds": 0})
    limit = 84 * 84 * 1e6 / GIGABYTE
    source = "one million frames of 84x84 bytes, each once"
    rows = [Row({"replay": "ours, 1,000,000 steps"}, "GB", [ours["bytes"] / GIGABYTE], limit, source)]
    scaled = theirs["bytes"] / theirs["steps"] * 1e6 / GIGABYTE
    name = "SB3, 1,000,000 steps (20,000 measured, times 50; memory-saving form)"
    return [*rows, Row({"replay": name}, "GB", [scaled], limit, source)]


SECTIONS: dict[str, Callable[[Options], Iterable[Row]]] = {
    "matrix": matrix,
    "updates": updates,
    "emulators": emulators,
    "peers": peers,
    "memory": memory,
    "cuda_runs": cuda_runs,
    "cuda_together": cuda_together,
}
