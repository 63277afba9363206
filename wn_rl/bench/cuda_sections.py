"""The sections that need a CUDA device: whole runs at a full replay, and learners that share the device."""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator

from wn_rl.bench.measure import Row, compile_first, measure_apart, measure_together
from wn_rl.bench.setups import UNSPLIT, Options, config_of
from wn_rl.config import to_json

TOGETHER = (1, 2, 4, 8)
GIGABYTE = 1e9


def cuda_runs(options: Options) -> Iterator[Row]:
    """Frames a second of the `fast` preset at a full replay, without tests and with: 12 times --seconds each."""
    if options.torch_device.type != "cuda":
        return
    for game, tests in itertools.product(options.games, (False, True)):
        random_then_greedy = {"epsilon_start": 1.0, "epsilon_end": 0.1, "epsilon_steps": 1}
        config = config_of("fast", game, options, learning={"precision": "bfloat16", **random_then_greedy})
        if not tests:
            config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, period=0))
        result = measure_apart("prefilled", {"config": to_json(config), "seconds": 12 * options.seconds})
        what: dict[str, str | int | float] = {
            "game": game,
            "tests": result["tests"] if tests else "none",
            "device memory, GB": round(result["device_bytes"] / GIGABYTE, 1),
        }
        yield Row(what, "frames/s", [4 * result["steps_per_second"]])


def cuda_together(options: Options) -> Iterator[Row]:
    """Updates a second of several learners at once, each in a process with a replay of its own; no emulators."""
    if options.torch_device.type != "cuda":
        return
    learning = {
        "precision": "bfloat16",
        "replay_capacity": 20_000,
        "replay_start": 10_000,
        "target_period": UNSPLIT,
    }
    config = dataclasses.replace(config_of("fast", "breakout", options, learning=learning), torch_threads=1)
    compile_first([config])
    with tempfile.TemporaryDirectory() as folder:
        shared = {"config": to_json(config), "seconds": options.seconds, "folder": folder, "counts": TOGETHER}
        results = measure_together("updates_together", [{**shared, "number": n} for n in range(max(TOGETHER))])
    for count in TOGETHER:
        rate = sum(result["rates"].get(str(count), 0.0) for result in results)
        yield Row({"learners": count, "precision": "bfloat16"}, "updates/s in all", [rate])
