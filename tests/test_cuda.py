"""The same code on a CUDA device; skipped without one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from run_tools import wn_rl

from wn_rl.agents.replay import Draws, Replay
from wn_rl.envs.base import EnvironmentSpec, Step

pytestmark = pytest.mark.cuda

SPEC = EnvironmentSpec(
    num_actions=3, frame_shape=(4, 4), dtype="uint8", scale=1.0, frames_per_step=1, action_meanings=("",) * 3
)


def test_replays_on_both_devices_draw_the_same_batches() -> None:
    replays = [Replay(200, 2, SPEC, stack=3, device=device) for device in ("cpu", "cuda")]
    generator = np.random.default_rng(0)
    for _ in range(130):
        step = Step(
            generator.integers(0, 255, (2, 4, 4), dtype=np.uint8),
            generator.normal(size=2).astype(np.float32),
            np.ones(2, np.float32),
            generator.random(2) < 0.1,
        )
        for replay in replays:
            replay.add(step, np.zeros(2, dtype=np.int64))
    for index in range(5):
        batches = []
        for replay in replays:
            draws = Draws(1, "update", 32, replay.device)
            draws.seek(index)
            batches.append(replay.sample(draws.take(1)))
        for one, other in zip(*batches, strict=True):
            assert torch.equal(one, other.cpu())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_trains_resumes_evaluates_and_plays(precision: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    schedule = [
        "--preset", "paper", "--device", "cuda", "--num-envs", "2", "--steps", "400",
        "--learning.replay-start", "80", "--learning.replay-capacity", "1000", "--evaluation.period", "200",
        "--evaluation.steps", "50", "--environment.max-episode-frames", "800", "--checkpoint-period", "100",
        "--log-period", "100", "--keep-replay", "--track", "jsonl", "--learning.precision", precision,
    ]  # fmt: skip
    assert wn_rl("train", "breakout", *schedule, "--run-dir", run) == 0
    assert wn_rl("resume", run, "--steps", "600") == 0
    assert wn_rl("evaluate", run, "--episodes", "1", "--device", "cuda") == 0
    assert wn_rl("play", run, "--device", "cuda") == 0
