"""The sections of the benchmark page: each is a function of the options that yields its rows."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bench import measure, workers
from bench.measure import Options, Row, What, apart, config_of
from bench.page import SB3
from wn_rl.agents.experiment import make_online_network, make_training_environments
from wn_rl.config import Config
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.machine import num_cores
from wn_rl.nn import fold
from wn_rl.registry import PRESETS

SB3_WITH_OUR_LAYERS = "SB3 DQN with our layers, weight_norm, float32"
GIGABYTE = 1e9
UNSPLIT = 64_000  # steps between copies of the target: rounds of sixteen updates are never split
LEARNING_OF_UPDATES = {"replay_capacity": 8_000, "replay_start": 8_000}
LEARNING_OF_CUDA_UPDATES = {"replay_capacity": 32_000, "replay_start": 32_000, "target_period": UNSPLIT}
LEARNING_OF_PEERS = {"replay_capacity": 50_000, "replay_start": 2_048, "target_period": UNSPLIT}
LEARNING_TOGETHER = {"replay_capacity": 20_000, "replay_start": 10_000, "target_period": UNSPLIT}
TURNS_OF_UPDATES = 25  # in a repetition: parameterizations differ by less than one turn from the next
TURNS_OF_PEERS = 3  # in a repetition
PEERS = (("laptop", "breakout"), ("laptop", "seaquest"), ("minatar", "breakout"), ("minatar", "space_invaders"))
LANES_OF_PEERS = (1, 64)
LEARNERS_TOGETHER = (1, 2, 4, 8)

Loop = tuple[int, str]  # lanes, name


def matrix(options: Options) -> Iterator[Row]:
    """The rate of matrix products, with which other sections compare their figures."""
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        yield Row({"type": name}, "GFLOP/s", [measure.matrix_rate(dtype, options.device) / 1e9])


def updates(options: Options) -> Iterator[Row]:
    """Time of one update at batch 64 on rotating batches of a real replay, drawing and gathering included."""
    if options.on_cuda:
        yield from _updates(config_of("fast", "breakout", options, LEARNING_OF_CUDA_UPDATES), options, calls=2)
        return
    for preset, calls in (("laptop", 2), ("minatar", 10)):
        config = config_of(preset, "breakout", options, LEARNING_OF_UPDATES, num_envs=16)
        yield from _updates(config, options, calls)


def _updates(base: Config, options: Options, calls: int) -> Iterator[Row]:
    """Rows of one network. calls: rounds in one measurement.

    Each repetition is a process of its own: ratios differ from process to process, by up to two hundredths.
    """
    torch.set_num_threads(base.torch_threads)
    rates = {name: measure.matrix_rate(getattr(torch, name), options.device) for name in ("float32", "bfloat16")}
    rates["tf32"] = rates["bfloat16"] / 2
    torch.set_num_threads(options.torch_threads)
    flop = measure.flop_of(lambda: plain_update(base))
    modes = ("eager", "compile", "cuda_graph") if options.on_cuda else ("eager", "compile")
    arms = list(itertools.product(modes, ("normal", "weight_norm")))
    for precision in ("bfloat16", "tf32", "float32") if options.on_cuda else ("float32", "bfloat16"):
        configs = {(mode, name): _changed(base, name, precision, mode) for mode, name in arms}
        repetitions = [
            apart(workers.rounds_in_turns, configs, TURNS_OF_UPDATES, calls) for _ in range(options.repetitions)
        ]
        in_microseconds = 1e6 / workers.updates_in_a_round(base)
        times = {arm: [in_microseconds * each for values in repetitions for each in values[arm]] for arm in arms}
        of = "half of bfloat16's, as tf32's," if precision == "tf32" else f"of {precision}"
        source = f"{flop / 1e9:.3g} GFLOP at the matrix rate {of} measured in this run"
        what: What = {"network": base.network.name, "threads": base.torch_threads, "precision": precision}
        for mode, name in arms:
            row = {**what, "accelerate": mode, "parameterization": name}
            yield Row(row, "microseconds", times[mode, name], flop / rates[precision] * 1e6, source)
            if name == "weight_norm":
                ratios = _ratios(times[mode, name], times[mode, "normal"])
                yield Row({**row, "parameterization": "weight_norm / normal"}, "ratio", ratios)


def _changed(config: Config, parameterization: str, precision: str, mode: str) -> Config:
    learning: Any = dataclasses.replace(config.learning, precision=precision)  # type: ignore[arg-type]
    changes: dict[str, Any] = {"parameterization": parameterization, "accelerate": mode, "learning": learning}
    return dataclasses.replace(config, **changes)


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]


def plain_update(config: Config) -> None:
    """The products of one update and no more: forward and backward, and the target's forward."""
    spec = _spec_of(config)
    network = fold(make_online_network(config, spec))
    size = config.learning.batch_size, config.network.stack, *spec.frame_shape
    states = torch.zeros(size, dtype=getattr(torch, spec.dtype))
    with torch.no_grad():
        network(states)
    network(states).sum().backward()


def _spec_of(config: Config) -> EnvironmentSpec:
    environments = make_training_environments(dataclasses.replace(config, num_envs=1))
    environments.close()
    return environments.spec


def emulators(options: Options) -> Iterator[Row]:
    """Emulator frames a second under random play, by lanes and threads."""
    cores = num_cores()
    lanes_and_threads = sorted({(1, 0), (8, 1), (8, cores), (64, cores)})
    for game, (lanes, threads) in itertools.product(options.games, lanes_and_threads):
        environment = dataclasses.replace(PRESETS["paper"](game).environment, emulator_threads=threads)
        config = config_of("paper", game, options, {}, num_envs=lanes, environment=environment)
        results = [apart(workers.emulator, config, options.seconds / 4) for _ in range(options.repetitions)]
        for rows in results[0]:
            what: What = {"game": game, "lanes": lanes, "threads": threads or 1, "rows": rows}
            yield Row(what, "frames/s", [result[rows] for result in results])


def peers(options: Options) -> Iterator[Row]:
    """Steps a second of whole training loops: ours beside Stable-Baselines3's DQN at the same work."""
    for preset, game in PEERS[:1] if options.on_cuda else PEERS:
        loops = {
            (lanes, name): loop
            for lanes in LANES_OF_PEERS
            for name, loop in _loops(config_of(preset, game, options, LEARNING_OF_PEERS, num_envs=lanes)).items()
        }
        turns = TURNS_OF_PEERS * options.repetitions
        results = measure.measure_in_turns(loops, turns, options.seconds / TURNS_OF_PEERS)
        for (lanes, name), (_, config) in loops.items():
            peer = lanes, SB3 if config.parameterization == "normal" else SB3_WITH_OUR_LAYERS
            for one, other in zip(results[lanes, name], results[peer], strict=True):
                require_equal_work(one, other)
        rates = {loop: [each["steps"] / each["seconds"] for each in turns] for loop, turns in results.items()}
        yield from rates_and_ratios(rates, {"suite": PRESETS[preset](game).suite, "game": game})


def _loops(base: Config) -> dict[str, tuple[Callable[..., None], Config]]:
    """Worker and config of each loop, by its name."""
    on_cuda = base.device != "cpu"
    mode = "cuda_graph" if on_cuda else "eager"
    normal, weight_norm = (_changed(base, name, "float32", mode) for name in ("normal", "weight_norm"))
    loops = {
        SB3: (workers.stable_baselines3, normal),
        SB3_WITH_OUR_LAYERS: (workers.stable_baselines3, weight_norm),
        "ours, normal, float32": (workers.ours, normal),
        "ours, weight_norm, float32": (workers.ours, weight_norm),
        "ours, normal, bfloat16": (workers.ours, _changed(base, "normal", "bfloat16", mode)),
    }
    for precision in () if on_cuda else ("float32", "bfloat16"):  # a CUDA graph is compiled already
        loops[f"ours, normal, {precision}, compile"] = workers.ours, _changed(base, "normal", precision, "compile")
    return loops


def rates_and_ratios(rates: dict[Loop, list[float]], what: What) -> Iterator[Row]:
    """Steps a second of each loop, and ratios within a turn to SB3 with the same number of lanes and with one."""
    for (lanes, name), values in rates.items():
        row = {**what, "lanes": lanes, "loop": name}
        yield Row(row, "steps/s", values)
        if name != SB3:
            yield Row({**row, "loop": f"{name} / SB3"}, "ratio", _ratios(values, rates[lanes, SB3]))
        if lanes != 1 and name not in (SB3, SB3_WITH_OUR_LAYERS):  # as most of its users run it
            yield Row({**row, "loop": f"{name} / SB3 with one lane"}, "ratio", _ratios(values, rates[1, SB3]))


def require_equal_work(one: dict[str, Any], other: dict[str, Any]) -> None:
    """AssertionError unless both loops had one size of network, one number of threads and lanes, one ratio."""
    for loop in (one, other):
        ahead = loop["steps"] - loop["steps_per_update"] * loop["updates"]
        assert abs(ahead) <= 2 * max(loop["lanes"], loop["steps_per_update"]), loop
    for same in ("num_parameters", "torch_threads", "lanes", "steps_per_update"):
        assert one[same] == other[same], (same, one, other)


def memory(options: Options) -> Iterator[Row]:
    """Resident bytes of a full replay of Atari; SB3's is measured small and scaled."""
    source = "one million frames of 84x84 bytes, each once"
    ours = apart(workers.bytes_of, workers.full_replay, 1_000_000)
    theirs = 50 * apart(workers.bytes_of, workers.full_sb3_replay, 20_000)
    scaled = "SB3, 1,000,000 steps (20,000 measured, times 50; memory-saving form)"
    for name, num_bytes in (("ours, 1,000,000 steps", ours), (scaled, theirs)):
        yield Row({"replay": name}, "GB", [num_bytes / GIGABYTE], 84 * 84 * 1e6 / GIGABYTE, source)


def cuda_runs(options: Options) -> Iterator[Row]:
    """Frames a second of the `fast` preset at a full replay, without and with evaluation: 12 times --seconds."""
    for game, evaluates in itertools.product(options.games, (False, True)):
        changes = {"evaluation": PRESETS["fast"](game).evaluation} if evaluates else {}
        config = config_of("fast", game, options, {"precision": "bfloat16"}, **changes)
        with measure.process(workers.ours, config, True) as connection:
            connection.recv()  # it is ready
            connection.send(12 * options.seconds)
            result = connection.recv()
        what: What = {
            "game": game,
            "evaluations": result["steps"] // config.evaluation.period if evaluates else "none",
            "device memory, GB": round(result["device_bytes"] / GIGABYTE, 1),
        }
        yield Row(what, "frames/s", [_spec_of(config).frames_per_step * result["steps"] / result["seconds"]])


def cuda_together(options: Options) -> Iterator[Row]:
    """Updates a second of several learners at once, each in a process with a replay of its own; no emulators."""
    config = config_of("fast", "breakout", options, {"precision": "bfloat16", **LEARNING_TOGETHER})
    config = dataclasses.replace(config, torch_threads=1)
    with contextlib.ExitStack() as stack:
        processes = (measure.process(workers.learner_alone, config) for _ in range(max(LEARNERS_TOGETHER)))
        learners = [stack.enter_context(each) for each in processes]
        for learner in learners:
            learner.recv()  # it is ready
        for count in LEARNERS_TOGETHER:
            for learner in learners[:count]:
                learner.send(options.seconds)
            results = [learner.recv() for learner in learners[:count]]
            rate = sum(result["updates"] / result["seconds"] for result in results)
            yield Row({"learners": count, "precision": "bfloat16"}, "updates/s in all", [rate])


SECTIONS: dict[str, Callable[[Options], Iterator[Row]]] = {
    section.__name__: section for section in (matrix, updates, emulators, peers, memory, cuda_runs, cuda_together)
}
