"""The same code on a CUDA device; skipped without one."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import wn_rl
from torch import Tensor

from wn_rl.agents.accelerate import Captured
from wn_rl.agents.actor import Stacks
from wn_rl.agents.dqn import DQN
from wn_rl.agents.experiment import make_dqn
from wn_rl.agents.replay import Draws, Replay
from wn_rl.config import OptimizerConfig
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.nn import OPTIMIZERS, PARAMETERIZATIONS
from wn_rl.nn.products import convolution
from wn_rl.nn.update.steps import PlainStep
from wn_rl.presets import minatar

pytestmark = [
    pytest.mark.cuda,
    # torch's compiler uses its own old parts, and advises against float32 as such.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TensorFloat32"),
]
CUDA = torch.device("cuda", 0)

SPEC = EnvironmentSpec(3, (4, 4), "uint8", 1.0, 1, ("",) * 3)


def steps_of_two_lanes(count: int) -> Iterator[Step]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        frames, reward = generator.integers(0, 255, (2, 4, 4), dtype=np.uint8), generator.normal(size=2)
        yield Step(frames, reward.astype(np.float32), np.ones(2, np.float32), generator.random(2) < 0.2)


def test_a_strided_convolution_is_that_of_torch() -> None:
    generator = torch.Generator(CUDA).manual_seed(0)
    for size, kernel, stride in [(84, 8, 4), (20, 4, 2), (23, 4, 2), (9, 3, 1), (10, 3, 2)]:
        x = torch.randn(
            5, 3, size, size, device=CUDA, dtype=torch.float64, generator=generator, requires_grad=True
        )
        conv = torch.nn.Conv2d(3, 6, kernel, stride, device=CUDA, dtype=torch.float64)
        geometry: Any = conv.stride, conv.padding, conv.dilation, conv.groups
        ours = convolution(x, conv.weight, conv.bias, *geometry)
        theirs = conv(x)
        torch.testing.assert_close(ours, theirs)
        of_ours = torch.autograd.grad(ours.square().sum(), [x, *conv.parameters()])
        for one, other in zip(
            of_ours, torch.autograd.grad(theirs.square().sum(), [x, *conv.parameters()]), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_stacks_on_the_device_are_those_in_host_memory() -> None:
    stacks = [Stacks(2, SPEC, 3, torch.device(device)) for device in ("cpu", "cuda")]
    for step in steps_of_two_lanes(20):
        for each in stacks:
            each.push(step)
        assert torch.equal(stacks[0].frames, stacks[1].frames.cpu())


def test_replays_on_both_devices_draw_the_same_batches() -> None:
    replays = [Replay(200, 2, SPEC, stack=3, device=device) for device in ("cpu", "cuda")]
    for step in steps_of_two_lanes(130):
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


@dataclass(frozen=True)
class Trained:
    """A run of 59 updates: the gradients of the first, and how far the parameters came from where they began."""

    experiment: DQN
    gradients: list[Tensor]
    change: Tensor


def flat(network: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def trained(parameterization: str, precision: str, accelerate: str, optimizer: str = "adamax") -> Trained:
    base = minatar("breakout")
    learning = dataclasses.replace(
        base.learning,
        replay_start=260,
        target_period=40,
        epsilon_steps=20,  # so that the network acts
        precision=precision,  # type: ignore[arg-type]
    )
    config = dataclasses.replace(
        base,
        steps=500,
        num_envs=8,
        parameterization=parameterization,  # type: ignore[arg-type]
        accelerate=accelerate,  # type: ignore[arg-type]
        optimizer=OptimizerConfig(name=optimizer),  # type: ignore[arg-type]
        learning=learning,
    )
    experiment = make_dqn(config, CUDA)
    learner = experiment.learner
    step, apply = learner.networks.step, learner.networks.step.apply
    gradients: list[Tensor] = []
    start: list[Tensor] = []

    def first_apply(leaves: Sequence[Tensor]) -> None:
        step.apply = apply  # type: ignore[method-assign]
        start.append(flat(learner.networks.online))
        apply(leaves)
        # Of v and g, whatever the step differentiates by: Adamax's mean begins at zero and moves half way.
        if optimizer == "adamax":
            gradients.extend(
                2 * learner.networks.optimizer.state[p]["mean"] for p in learner.networks.online.parameters()
            )

    step.apply = first_apply  # type: ignore[method-assign]
    experiment.run(config.steps, lambda experiment: None)
    assert learner.num_updates == 59
    return Trained(experiment, gradients, flat(learner.networks.online) - start[0])


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_graphs_give_what_the_compiled_code_gives(
    parameterization: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same kernels, launched one by one or as a graph: weights agree to rounding after 59 updates.

    In bfloat16 and tf32 roughly: the compiler may choose other kernels for the second learner, whose last bits
    differ, and what is rounded to the other side is another game's.
    """
    torch._dynamo.reset()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    compiled, graphs = (trained(parameterization, precision, mode) for mode in ("compile", "cuda_graph"))
    run = graphs.experiment
    assert isinstance(run.learner.networks.refresh_acting, Captured) == (parameterization != "normal")
    assert isinstance(run.learner._run_round, Captured)
    for captured in (
        run.learner._run_round,
        run.learner.networks.refresh_acting,
        run.actor._ask_network,
        run.actor._stacks._append,
    ):
        if isinstance(captured, Captured):
            assert captured._graphs
    if precision != "float32":
        assert_near(graphs, compiled, 0.2)
    else:
        theirs = compiled.experiment.learner.networks.online.state_dict()
        for name, value in run.learner.networks.online.state_dict().items():
            torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-5, msg=name)
    assert_near(compiled, trained(parameterization, "float32", "eager"), 0.01 if precision == "float32" else 0.2)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "adamax"])
def test_a_step_without_a_kernel_of_its_own_is_captured_too(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by torch from plain operations; near to eager ones in the way that the weights go."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    runs = {
        mode: trained("weight_norm", "float32", mode, optimizer) for mode in ("eager", "compile", "cuda_graph")
    }
    assert isinstance(runs["cuda_graph"].experiment.learner.networks.step, PlainStep)
    for mode in ("compile", "cuda_graph"):
        assert_near(runs[mode], runs["eager"], 0.01)


def assert_near(one: Trained, other: Trained, tolerance: float) -> None:
    """Gradients near those of another precision or other kernels, and a way of the same direction.

    The way only roughly: where gradients are small Adamax makes whole steps of rounding, and the games part.
    """
    for ours, theirs in zip(one.gradients, other.gradients, strict=True):
        assert (ours - theirs).norm() < tolerance * theirs.norm()
    assert (one.change - other.change).norm() < 0.7 * other.change.norm()


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
        free = 10**12 if where == "cuda" else 0
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        experiment = make_dqn(config, CUDA)
        assert experiment.replay.device.type == where
        experiment.run(config.steps, lambda experiment: None)
        ends.append(experiment.learner.networks.online.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("float32", False)])
def test_only_tf32_rounds_the_factors_of_products(precision: str, allowed: bool) -> None:
    base = minatar("breakout")
    learning = dataclasses.replace(base.learning, precision=precision)  # type: ignore[arg-type]
    make_dqn(dataclasses.replace(base, learning=learning), CUDA)
    assert torch.backends.cuda.matmul.allow_tf32 == allowed
    assert torch.backends.cudnn.allow_tf32 == allowed
