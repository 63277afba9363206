"""The sections of the benchmark page, each a function of the options that gives its rows."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from wn_rl.agents.experiment import make_training_environments
from wn_rl.agents.learner import make_online_network
from wn_rl.agents.replay import Draws, Replay
from wn_rl.bench.cuda_sections import cuda_runs, cuda_together
from wn_rl.bench.measure import Row, flop_of, matrix_rate, measure_apart, measure_together, seconds_in_turns
from wn_rl.bench.setups import UNSPLIT, Options, config_of, filled_replay, round_function
from wn_rl.config import Config, to_json
from wn_rl.nn import fold
from wn_rl.presets import PRESETS

SB3 = "SB3 DQN, float32"
SB3_WITH_OUR_LAYERS = "SB3 DQN with our layers, weight_norm, float32"
GIGABYTE = 1e9


def matrix(options: Options) -> list[Row]:
    """The rate of matrix products, which other sections hold their figures against."""
    types = [torch.float32, torch.bfloat16]
    return [
        Row({"type": str(kind).removeprefix("torch.")}, "GFLOP/s", [matrix_rate(kind, options.torch_device) / 1e9])
        for kind in types
    ]


UPDATES_ON_CUDA = {"replay_capacity": 50_000, "target_period": UNSPLIT}

UpdateArm = tuple[str, str, str]  # precision, mode of --accelerate, parameterization


def updates(options: Options) -> Iterator[Row]:
    """Time of one update at batch 64 on rotating batches of a real replay, drawing and gathering included."""
    if options.torch_device.type == "cuda":
        yield from _updates(config_of("fast", "breakout", options, learning=UPDATES_ON_CUDA), options, calls=2)
    else:
        yield from _updates(config_of("laptop", "breakout", options, num_envs=8), options, calls=2)
        yield from _updates(config_of("minatar", "breakout", options, num_envs=8), options, calls=20)


def _updates(base: Config, options: Options, calls: int) -> Iterator[Row]:
    """Of one network. calls: rounds in one measurement."""
    device = options.torch_device
    torch.set_num_threads(base.torch_threads)
    replay = filled_replay(base, device, num_rows=500)
    rates = {"float32": matrix_rate(torch.float32, device), "bfloat16": matrix_rate(torch.bfloat16, device)}
    rates["tf32"] = rates["bfloat16"] / 2
    configs = _configs_of_arms(base, on_cuda=device.type == "cuda")
    if device.type == "cuda":  # all at once: one after another they take minutes
        compiled = [{"config": to_json(config)} for (_, mode, _), config in configs.items() if mode == "compile"]
        measure_together("compile_round", compiled)
    updates_in_a_round = base.num_envs // base.learning.update_period
    rounds = {
        "/".join(arm): functools.partial(round_function(config, replay, device), updates_in_a_round)
        for arm, config in configs.items()
    }
    flop = flop_of(functools.partial(_plain_update, base, replay))
    seconds = seconds_in_turns(rounds, options.repetitions * 5, calls, device)
    for precision, mode, parameterization in configs:
        each = seconds[f"{precision}/{mode}/{parameterization}"]
        what: dict[str, str | int | float] = {
            "network": base.network.name,
            "threads": base.torch_threads,
            "precision": precision,
            "accelerate": mode,
            "parameterization": parameterization,
        }
        of = "half of bfloat16's, as tf32's," if precision == "tf32" else f"of {precision}"
        source = f"{flop / 1e9:.3g} GFLOP at the matrix rate {of} measured in this run"
        microseconds = [1e6 * second / updates_in_a_round for second in each]
        yield Row(what, "microseconds", microseconds, flop / rates[precision] * 1e6, source)
        if parameterization == "weight_norm":
            normal = seconds[f"{precision}/{mode}/normal"]
            ratios = [ours / theirs for ours, theirs in zip(each, normal, strict=True)]
            yield Row({**what, "parameterization": "weight_norm / normal"}, "ratio", ratios)
    torch.set_num_threads(options.threads)


def _configs_of_arms(base: Config, on_cuda: bool) -> dict[UpdateArm, Config]:
    """Every precision, mode and parameterization that an update is timed with."""
    precisions = ("float32", "tf32", "bfloat16") if on_cuda else ("float32", "bfloat16")
    modes = ("eager", "compile", "cuda_graph") if on_cuda else ("eager", "compile")
    return {
        (precision, mode, parameterization): dataclasses.replace(
            base,
            accelerate=mode,  # type: ignore[arg-type]
            parameterization=parameterization,  # type: ignore[arg-type]
            learning=dataclasses.replace(base.learning, precision=precision),  # type: ignore[arg-type]
        )
        for precision, mode, parameterization in itertools.product(precisions, modes, ("normal", "weight_norm"))
    }


def _plain_update(config: Config, replay: Replay) -> None:
    """The products of one update and no more: forward and backward, and the target's forward."""
    environments = make_training_environments(dataclasses.replace(config, num_envs=1))
    network = fold(make_online_network(config, environments.spec))
    environments.close()
    draws = Draws(0, "update", config.learning.batch_size, replay.device)
    draws.seek(0)
    states = replay.sample(draws.take(1)).s_tm1.cpu()
    with torch.no_grad():
        network(states)
    network(states).sum().backward()


def emulators(options: Options) -> Iterator[Row]:
    """Emulator frames a second under random play, by lanes and threads."""
    cores = os.cpu_count() or 1
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


PEERS = (
    ("laptop", "breakout", 1),
    ("laptop", "breakout", 8),
    ("laptop", "seaquest", 1),
    ("laptop", "seaquest", 8),
    ("minatar", "breakout", 1),
    ("minatar", "breakout", 16),
    ("minatar", "space_invaders", 1),
    ("minatar", "space_invaders", 16),
)
PEERS_ON_CUDA = (("laptop", "breakout", 1), ("laptop", "breakout", 8))


def peers(options: Options) -> Iterator[Row]:
    """Steps a second of whole training loops: ours beside Stable-Baselines3's DQN at the same work."""
    on_cuda = options.torch_device.type == "cuda"
    small = {"replay_capacity": 50_000, "replay_start": 2_000, "target_period": 10_000}
    fast: dict[str, Any] = {"accelerate": "cuda_graph"} if on_cuda else {}
    in_bfloat16 = {"parameterization": "normal", "learning": {**small, "precision": "bfloat16"}, **fast}
    arms: dict[str, dict[str, Any]] = {
        "ours, normal, float32": {"parameterization": "normal", "learning": small, **fast},
        "ours, weight_norm, float32": {"parameterization": "weight_norm", "learning": small, **fast},
        "ours, normal, bfloat16": in_bfloat16,
    }
    if not on_cuda:  # where rounds are CUDA graphs, they are compiled already
        for name in ("ours, normal, float32", "ours, normal, bfloat16"):
            arms[f"{name}, compile"] = {**arms[name], "accelerate": "compile"}
    rows: list[Row] = []
    for preset, game, lanes in PEERS_ON_CUDA if on_cuda else PEERS:
        configs = {
            name: config_of(preset, game, options, num_envs=lanes, **changes) for name, changes in arms.items()
        }
        of_game = _against_sb3(
            configs, options, {"suite": PRESETS[preset](game).suite, "game": game, "lanes": lanes}
        )
        yield from of_game
        rows += of_game
    yield from _lanes_against_one(rows)


def _lanes_against_one(rows: list[Row]) -> list[Row]:
    """Our loop with lanes beside SB3's with one, as most of its users run it: rates of different turns."""
    rates = [row for row in rows if row.unit == "steps/s"]
    one_lane = {
        (row.what["suite"], row.what["game"]): row.values
        for row in rates
        if row.what["lanes"] == 1 and row.what["loop"] == SB3
    }
    compared = []
    for row in rates:
        theirs = one_lane.get((row.what["suite"], row.what["game"]))
        if theirs is not None and row.what["lanes"] != 1 and row.what["loop"] not in (SB3, SB3_WITH_OUR_LAYERS):
            ratios = [a / b for a, b in zip(row.values, theirs, strict=True)]
            compared.append(Row({**row.what, "loop": f"{row.what['loop']} / SB3 with one lane"}, "ratio", ratios))
    return compared


def _against_sb3(configs: dict[str, Config], options: Options, what: dict[str, str | int | float]) -> list[Row]:
    """Rates in turns, and each arm's ratio to SB3 within a turn."""
    loops = {
        SB3: ("stable_baselines3", configs["ours, normal, float32"]),
        SB3_WITH_OUR_LAYERS: ("sb3_with_our_layers", configs["ours, weight_norm, float32"]),
        **{name: ("ours", config) for name, config in configs.items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.repetitions):
        turn = {name: _rate(worker, config, options) for name, (worker, config) in loops.items()}
        for name, config in configs.items():
            is_normal = config.parameterization == "normal"
            require_equal_work(turn[name], turn[SB3 if is_normal else SB3_WITH_OUR_LAYERS])
        for name, result in turn.items():
            rates[name].append(result["steps_per_second"])
    rows = []
    for name, each in rates.items():
        rows.append(Row({**what, "loop": name}, "steps/s", each))
        if name != SB3:
            ratios = [a / b for a, b in zip(each, rates[SB3], strict=True)]
            rows.append(Row({**what, "loop": f"{name} / SB3"}, "ratio", ratios))
    return rows


def _rate(worker: str, config: Config, options: Options) -> dict[str, Any]:
    return measure_apart(worker, {"config": to_json(config), "seconds": options.seconds})


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
