"""The same code on a CUDA device; skipped without one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from run_tools import wn_rl

from wn_rl.agents import experiment as experiment_module
from wn_rl.agents.accelerate import Captured
from wn_rl.agents.experiment import Experiment
from wn_rl.agents.replay import Draws, Replay
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.nn import PARAMETERIZATIONS
from wn_rl.presets import minatar

pytestmark = [
    pytest.mark.cuda,
    # torch's compiler uses its own old parts, and advises against float32 as such.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TensorFloat32"),
]
CUDA = torch.device("cuda", 0)

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


@pytest.mark.parametrize(("accelerate", "precision"), [("eager", "float32"), ("cuda_graph", "bfloat16")])
def test_a_run_trains_resumes_evaluates_and_plays(accelerate: str, precision: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    schedule = [
        "--preset", "fast", "--device", "cuda", "--num-envs", "16", "--steps", "4000",
        "--learning.replay-start", "400", "--learning.replay-capacity", "2000", "--evaluation.period", "2000",
        "--learning.epsilon-steps", "1000", "--learning.target-period", "1000",
        "--evaluation.steps", "50", "--environment.max-episode-frames", "800", "--checkpoint-period", "1000",
        "--log-period", "1000", "--keep-replay", "--track", "jsonl",
        "--learning.precision", precision, "--accelerate", accelerate,
    ]  # fmt: skip
    assert wn_rl("train", "breakout", *schedule, "--run-dir", run) == 0
    assert wn_rl("resume", run, "--steps", "6000") == 0
    assert wn_rl("evaluate", run, "--episodes", "1", "--device", "cuda") == 0
    assert wn_rl("play", run, "--device", "cuda") == 0


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_graphs_give_what_the_compiled_code_gives(
    parameterization: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same kernels, launched one by one or as a graph: weights agree to rounding after 60 updates."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    base = minatar("breakout")
    config = dataclasses.replace(
        base,
        steps=500,
        num_envs=8,
        parameterization=parameterization,
        learning=dataclasses.replace(
            base.learning,
            replay_start=260,
            target_period=40,
            epsilon_steps=20,  # so that the network acts
            precision=precision,  # type: ignore[arg-type]
        ),
    )
    ends = []
    for mode in ("eager", "compile", "cuda_graph"):
        experiment = Experiment(dataclasses.replace(config, accelerate=mode), CUDA)  # type: ignore[arg-type]
        experiment.run(lambda experiment: None)
        if mode == "cuda_graph":
            for captured in (experiment.rounds._run, experiment.rounds._refresh, experiment.actor._ask_network):
                assert isinstance(captured, Captured)
                assert captured._graphs
        assert experiment.learner.num_updates == 59
        ends.append(experiment.learner.online.state_dict())
    tolerance = 1e-3 if precision == "float32" else 3e-2
    for name, value in ends[2].items():
        torch.testing.assert_close(value, ends[1][name], atol=1e-5, rtol=1e-5, msg=name)
        torch.testing.assert_close(value, ends[0][name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize("accelerate", ["eager", "cuda_graph"])
def test_a_replay_in_host_memory_gives_the_same_run(accelerate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    base = minatar("breakout")
    config = dataclasses.replace(
        base,
        steps=400,
        num_envs=8,
        accelerate=accelerate,  # type: ignore[arg-type]
        learning=dataclasses.replace(base.learning, replay_start=260),
    )
    ends = []
    for where in ("cuda", "cpu"):
        monkeypatch.setattr(
            experiment_module,
            "replay_device",
            lambda device, num_bytes, where=where: device if where == "cuda" else torch.device("cpu"),
        )
        experiment = Experiment(config, CUDA)
        experiment.run(lambda experiment: None)
        ends.append(experiment.learner.online.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("float32", False)])
def test_only_tf32_rounds_the_factors_of_products(precision: str, allowed: bool) -> None:
    base = minatar("breakout")
    learning = dataclasses.replace(base.learning, precision=precision)  # type: ignore[arg-type]
    Experiment(dataclasses.replace(base, learning=learning), CUDA)
    assert torch.backends.cuda.matmul.allow_tf32 == allowed
    assert torch.backends.cudnn.allow_tf32 == allowed
