"""What is measured on a CUDA device: whole runs at a full replay, and learners side by side."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from wn_rl.bench.clock import SteadyState, TimeIsUp
from wn_rl.bench.measure import synchronize
from wn_rl.config import Config, from_json

_FAILURE = "failure"


def prefilled(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Our loop at a full replay, for so many seconds; if the config has tests, to the end of the next one.

    Random play until replay start gives the replay's rows, which are repeated until it is full.
    """
    from wn_rl.agents.dqn import DQN as Experiment
    from wn_rl.agents.evaluation import run_epoch_test

    settings = from_json(config)
    torch.set_num_threads(settings.torch_threads or torch.get_num_threads())
    experiment = Experiment(settings, torch.device(settings.device))
    # Some rows after the eighth copy of the target, rounds of every size have come, been compiled and captured.
    clock = SteadyState(settings.learning.replay_start + 9 * settings.learning.target_period, seconds)
    period, num_tests = settings.evaluation.period, 0

    def after_step(experiment: Any) -> None:
        nonlocal num_tests
        if experiment.num_steps + settings.num_envs >= settings.learning.replay_start:
            fill(experiment.replay)
        since_start = clock.steps_since_start(experiment.num_steps)
        if period and since_start:
            if since_start < (num_tests + 1) * period:
                return  # the time ends with a test: each belongs to the training before it
            num_tests += 1
            run_epoch_test(settings, experiment.learner.acting, seed=num_tests, tick=lambda: None)
        if not clock(experiment.num_steps, experiment.learner.num_updates):
            raise TimeIsUp

    with contextlib.suppress(TimeIsUp):
        experiment.run(after_step)
    device_bytes = torch.cuda.max_memory_reserved() if settings.device.startswith("cuda") else 0
    return {**clock.result, "tests": num_tests, "device_bytes": device_bytes}


def fill(replay: Any) -> None:
    """Repeat the rows of a replay until it is full; nothing if it is."""
    if replay.num_rows >= replay.ring_rows:
        return
    rows = replay.read_rows(replay.oldest_row, replay.num_rows)
    while replay.num_rows < replay.ring_rows:
        replay.write_rows(replay.num_rows, rows)
    if replay.device.type == "cuda":  # what the copies took is no part of a run
        del rows
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def updates_together(
    config: dict[str, Any], seconds: float, folder: str, number: int, counts: list[int]
) -> dict[str, Any]:
    """Updates a second of this learner while so many run: by turns each count of them; the others wait."""
    with failure_told(Path(folder)):
        return {"rates": _rates_together(from_json(config), seconds, Path(folder), number, counts)}


def _rates_together(
    settings: Config, seconds: float, folder: Path, number: int, counts: list[int]
) -> dict[str, float]:
    from wn_rl.bench.setups import filled_replay, round_function

    torch.set_num_threads(settings.torch_threads)
    device = torch.device(settings.device)
    updates_in_a_round = settings.num_envs // settings.learning.update_period
    num_rows = settings.learning.replay_start // settings.num_envs
    learn = round_function(settings, filled_replay(settings, device, num_rows), device)
    for _ in range(8):
        learn(updates_in_a_round)
    rates = {}
    for count in counts:
        synchronize(device)
        meet(folder, f"{count}-{number}", f"{count}-*", max(counts))
        if number >= count:
            continue
        updates, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds:
            learn(updates_in_a_round)
            synchronize(device)
            updates += updates_in_a_round
        rates[str(count)] = updates / passed
    return rates


def compile_round(config: dict[str, Any]) -> dict[str, Any]:
    """Make one round, so that what torch compiles for it lies in its cache for the process that measures."""
    from wn_rl.bench.setups import filled_replay, round_function

    settings = from_json(config)
    device = torch.device(settings.device)
    learn = round_function(settings, filled_replay(settings, device, num_rows=20), device)
    learn(max(1, settings.num_envs // settings.learning.update_period))
    synchronize(device)
    return {}


@contextlib.contextmanager
def failure_told(folder: Path) -> Iterator[None]:
    """Within: an error is written to the folder, where those that wait in `meet` find it."""
    try:
        yield
    except Exception as error:
        (folder / _FAILURE).write_text(f"{type(error).__name__}: {error}")
        raise


def meet(folder: Path, name: str, pattern: str, size: int, patience: float = 300) -> None:
    """Wait until so many processes have left their names in the folder.

    Raises:
        RuntimeError: one of them failed.
        TimeoutError: they did not come.
    """
    (folder / name).touch()
    deadline = time.monotonic() + patience
    while len(list(folder.glob(pattern))) < size:
        if (folder / _FAILURE).exists():
            raise RuntimeError(f"another learner failed: {(folder / _FAILURE).read_text()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(list(folder.glob(pattern)))} of {size} came")
        time.sleep(0.01)
