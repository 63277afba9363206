"""Rounds: a target forward for all, copies where they are due, and the rules of a CUDA graph."""

import copy
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from recorder import Recorder, record
from torch import Tensor

from wn_rl.agents import q_networks as q_networks_module
from wn_rl.agents.accelerate import WARM_UPS, Captured, Transfer
from wn_rl.agents.actor import Actor
from wn_rl.agents.dqn import Learner
from wn_rl.agents.experiment import make_dqn, make_q_networks
from wn_rl.agents.replay import LONGEST_ROUND, Draws, Replay
from wn_rl.config import Config, LearningConfig, NetworkConfig, OptimizerConfig
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.errors import UserError
from wn_rl.machine import require_compiler
from wn_rl.nn import OPTIMIZERS, PARAMETERIZATIONS, data_dependent_init, refill
from wn_rl.nn.layers import layers_of, named_normalized
from wn_rl.nn.update import optimizers as optimizers_module
from wn_rl.nn.update import steps as steps_module
from wn_rl.nn.update.steps import PlainStep
from wn_rl.nn.weights import unit_norms
from wn_rl.presets import minatar
from wn_rl.seeding import derive_seed

CPU = torch.device("cpu")
SPEC = EnvironmentSpec(3, (2, 6, 6), "uint8", 1.0, 1, ("",) * 3)
CONFIG = Config(
    "breakout",
    suite="minatar",
    num_envs=4,
    network=NetworkConfig(name="minatar_cnn", stack=2),
    learning=LearningConfig(batch_size=16, target_period=40, replay_capacity=800, replay_start=100),
)


def step_of(generator: np.random.Generator, num_envs: int = 4) -> Step:
    return Step(
        generator.integers(0, 2, (num_envs, *SPEC.frame_shape), dtype=np.uint8),
        generator.normal(size=num_envs).astype(np.float32),
        (generator.random(num_envs) > 0.1).astype(np.float32),
        generator.random(num_envs) < 0.1,
    )


class Bench:
    """A learner and a filled replay."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.config = config
        self.replay = Replay(config.learning.replay_capacity, 4, SPEC, stack=2)
        self.generator = np.random.default_rng(0)
        self.add(60)
        self.learner = Learner(
            make_q_networks(config, SPEC, CPU),
            self.replay,
            config.learning,
            seed=derive_seed(config.seed, "replay"),
        )
        draws = Draws(0, "initialize", 64)
        draws.seek(0)
        states = self.replay.sample(draws.take(1)).s_tm1
        self.learner.networks.initialize(lambda online: data_dependent_init(online, states))

    def add(self, num_rows: int) -> None:
        for _ in range(num_rows):
            self.replay.add(step_of(self.generator), self.generator.integers(0, 3, 4))

    def one_by_one(self, num_updates: int) -> None:
        """The sequential reference: draw, learn and count each update alone."""
        learner, learning = self.learner, self.config.learning
        draws = Draws(derive_seed(self.config.seed, "replay"), "update", learning.batch_size)
        for _ in range(num_updates):
            draws.seek(learner.num_updates)
            batch = self.replay.sample(draws.take(1))
            target_t = learner._compute_targets(batch)
            loss = learner._compute_loss(batch.s_tm1, batch.a_tm1, target_t, batch.weight)
            learner.networks.step.apply(torch.autograd.grad(loss, learner.networks.step.leaves))
            learner.num_updates += 1
            if learner.num_updates % (learning.target_period // learning.update_period) == 0:
                learner.networks.copy_target()
        learner.networks.refresh_acting()

    def tensors(self) -> dict[str, Tensor]:
        networks = self.learner.networks
        named = {"online": networks.online, "target": networks.target, "acting": networks.acting}
        found = {f"{name}.{key}": t for name, net in named.items() for key, t in net.state_dict().items()}
        return found | {"loss_sum": networks.sums.loss, "q_sum": networks.sums.q}


def assert_equal(one: Bench, other: Bench, tolerance: float = 0.0) -> None:
    assert one.learner.num_updates == other.learner.num_updates
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(tensor, other.tensors()[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_round_equals_the_sequential_reference(parameterization: str) -> None:
    """Rounds of 7 over copies every 10 and blocks of draws: to float tolerance, from one round's start."""
    config = dataclasses.replace(CONFIG, parameterization=parameterization)
    together, sequential = Bench(config), Bench(config)
    for _ in range(4):
        together.learner.learn(7)
        sequential.one_by_one(7)
        assert_equal(together, sequential, tolerance=1e-4)


def test_the_target_is_copied_exactly_where_it_is_due() -> None:
    bench = Bench()
    copies = []
    copy_target = bench.learner.networks.copy_target

    def noted() -> None:
        copies.append(bench.learner.num_updates)
        copy_target()

    bench.learner.networks.copy_target = noted  # type: ignore[method-assign]
    for _ in range(10):
        bench.learner.learn(16)
    assert copies == list(range(10, 161, 10))


def test_a_round_may_cross_the_block_of_drawn_bits() -> None:
    config = dataclasses.replace(CONFIG, learning=dataclasses.replace(CONFIG.learning, target_period=4_000))
    together, at_once, sequential = Bench(config), Bench(config), Bench(config)
    together.learner.learn(LONGEST_ROUND - 2)
    together.learner.learn(5)
    at_once.learner.learn(LONGEST_ROUND + 3)  # more updates than a round holds are all made
    sequential.one_by_one(LONGEST_ROUND + 3)
    assert_equal(together, sequential, tolerance=1e-3)
    assert_equal(at_once, sequential, tolerance=1e-3)


@pytest.fixture
def no_numbers_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA."""
    monkeypatch.setattr(optimizers_module, "NUMBERS_READ_ON", ())


@pytest.mark.usefixtures("no_numbers_read")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_captured_round_gives_what_the_eager_one_gives(parameterization: str, optimizer: str) -> None:
    """Nothing in a round depends on what Python holds: replayed operations on the same tensors give the same."""
    config = dataclasses.replace(
        CONFIG,
        parameterization=parameterization,
        optimizer=dataclasses.replace(CONFIG.optimizer, name=optimizer),  # type: ignore[arg-type]
    )
    eager, captured = Bench(config), Bench(config)
    captured.learner._run_round = Captured(captured.learner._round, capture=record)
    if parameterization != "normal":
        captured.learner.networks.refresh_acting = Captured(
            captured.learner.networks.refresh_acting, capture=record
        )
    for number in range(WARM_UPS + 9):
        for bench in (eager, captured):
            bench.add(1 + number)
            bench.learner.learn(4)
        assert_equal(eager, captured)
    assert captured.learner._run_round._graphs.keys() == {(4,), (2,)}  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as below
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_refresh_is_captured_where_it_does_something(parameterization: str) -> None:
    """Torch warns of a graph of nothing: acting shares the weights of normal layers."""
    config = dataclasses.replace(CONFIG, parameterization=parameterization, accelerate="cuda_graph")
    networks = make_q_networks(config, SPEC, CPU)
    assert isinstance(networks.refresh_acting, Captured) == (
        parameterization not in ("normal", "layer_norm", "projected")
    )
    recorder = Recorder()
    with recorder:
        refill(networks.acting, networks.online)
    writes = [call for call in recorder.calls if call[0]._schema.is_mutable]
    assert bool(writes) == isinstance(networks.refresh_acting, Captured)


@pytest.mark.usefixtures("no_numbers_read")
def test_a_captured_bound_on_v_gives_what_the_eager_one_gives() -> None:
    config = dataclasses.replace(
        CONFIG, network=dataclasses.replace(CONFIG.network, max_v_norm=0.3, log_scale=3.0)
    )
    eager, captured = Bench(config), Bench(config)
    captured.learner._run_round = Captured(captured.learner._round, capture=record)
    for _ in range(WARM_UPS + 4):
        eager.learner.learn(2)
        captured.learner.learn(2)
    assert_equal(eager, captured)


def test_a_captured_actor_acts_as_the_eager_one() -> None:
    learner = Bench().learner
    actors = [Actor(learner.networks.acting, 4, SPEC, stack=2, seed=3) for _ in range(2)]
    actors[1]._ask_network = Captured(actors[1]._choose_greedily, capture=record)
    generator = np.random.default_rng(5)
    for _ in range(WARM_UPS + 20):
        step = step_of(generator)
        one, other = (actor.act(step, 0.2) for actor in actors)
        assert one.tolist() == other.tolist()


def test_batches_handed_over_from_host_memory_are_the_same() -> None:
    direct, staged = Bench(), Bench()
    staged.learner._batches._transfer = Transfer(CPU)
    for number in (4, 3, 9):
        direct.learner.learn(number)
        staged.learner.learn(number)
    assert_equal(direct, staged)


def test_what_needs_cuda_is_refused_without_it() -> None:
    config = dataclasses.replace(minatar("breakout"), accelerate="cuda_graph")
    with pytest.raises(ValueError, match="--accelerate cuda_graph needs a CUDA device, not cpu"):
        make_dqn(config, CPU)
    learning = dataclasses.replace(config.learning, precision="tf32")
    with pytest.raises(ValueError, match=r"--learning\.precision tf32 needs a CUDA device, not cpu"):
        make_dqn(dataclasses.replace(config, accelerate="eager", learning=learning), CPU)


def test_compiling_without_a_compiler_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = dataclasses.replace(minatar("breakout"), accelerate="compile")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler: install one"):
        make_dqn(config, CPU)


def test_on_cuda_it_is_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="cuda_graph needs a C compiler, and there is no gcc or clang"):
        require_compiler("--accelerate cuda_graph", "cuda")
    monkeypatch.setenv("CC", sys.executable)
    require_compiler("--accelerate cuda_graph", "cuda")


def test_too_few_rows_are_refused() -> None:
    bench = Bench()
    bench.learner.replay = Replay(800, 4, SPEC, stack=2)
    with pytest.raises(ValueError, match="needs more"):
        bench.learner.learn(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses its own old parts
def test_the_compiler_may_make_a_program_for_each_size_of_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(q_networks_module, "NETWORKS_COMPILED_ON", ("cpu",))
    Bench(dataclasses.replace(CONFIG, accelerate="compile"))
    from torch._dynamo import config as dynamo

    assert dynamo.recompile_limit >= LONGEST_ROUND
    assert dynamo.fail_on_recompile_limit_hit


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_a_process_may_compile_many_learners_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts the programs of all: beyond its limit it used to run eagerly without a word."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled.append(1)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    for _ in range(10):
        Bench(dataclasses.replace(CONFIG, accelerate="compile")).learner.learn(1)
    assert len(compiled) == 10


COMPILED = [(parameterization, "adamax", on) for parameterization in PARAMETERIZATIONS for on in ((), ("cpu",))]
COMPILED += [("weight_norm", optimizer, ()) for optimizer in OPTIMIZERS if optimizer != "adamax"]
QUICKEST = ("weight_norm", "adamax", ())  # what follows backward alone: some twelve seconds of compiling


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
@pytest.mark.parametrize(
    ("parameterization", "optimizer", "networks_compiled_on"),
    [pytest.param(*case, marks=() if case == QUICKEST else pytest.mark.slow) for case in COMPILED],
)
def test_a_compiled_round_equals_the_eager_one(
    parameterization: str, optimizer: str, networks_compiled_on: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """("cpu",) as on CUDA: the networks too, and how an update ends in one kernel, by Triton's interpreter."""
    if networks_compiled_on:
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("where Triton compiles for CUDA, its interpreter is off")
    monkeypatch.setattr(q_networks_module, "NETWORKS_COMPILED_ON", networks_compiled_on)
    monkeypatch.setattr(steps_module, "KERNEL_ON", networks_compiled_on)
    config = dataclasses.replace(
        CONFIG,
        parameterization=parameterization,  # type: ignore[arg-type]
        optimizer=OptimizerConfig(name=optimizer),  # type: ignore[arg-type]
    )
    eager, compiled = Bench(config), Bench(dataclasses.replace(config, accelerate="compile"))
    for _ in range(3):
        eager.learner.learn(4)
        compiled.learner.learn(4)
        assert_equal(eager, compiled, tolerance=1e-4)
    assert isinstance(compiled.learner.networks.step, PlainStep) != bool(networks_compiled_on)
    resumed = Bench(compiled.config)
    resumed.learner.networks.load_state_dict(copy.deepcopy(compiled.learner.networks.state_dict()))
    resumed.learner.num_updates = compiled.learner.num_updates
    for bench in (compiled, resumed):
        bench.learner.learn(4)
    assert_equal(resumed, compiled)  # to the last bit


def test_bfloat16_keeps_the_output_layer_and_every_state_in_float32() -> None:
    bench = Bench(with_precision(CONFIG, "bfloat16"))
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    for network in (bench.learner.networks.online, bench.learner.networks.target):
        network[-1].register_forward_hook(lambda module, args, out: seen.append((args[0].dtype, out.dtype)))
    bench.learner.learn(2)
    assert seen == [(torch.float32, torch.float32)] * 3
    assert {tensor.dtype for tensor in bench.tensors().values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernel_on", [(), ("cpu",)])
def test_a_state_that_is_loaded_reaches_the_weights_that_are_held(
    precision: Literal["float32", "bfloat16"], kernel_on: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled before the first update."""
    if kernel_on:
        pytest.importorskip("triton")
    monkeypatch.setattr(steps_module, "KERNEL_ON", kernel_on)
    monkeypatch.setattr(q_networks_module, "NETWORKS_COMPILED_ON", kernel_on)  # ("cpu",): all as on CUDA
    config = with_precision(dataclasses.replace(CONFIG, accelerate="compile"), precision)
    saved, loaded = (Bench(dataclasses.replace(config, seed=seed)).learner.networks for seed in (1, 2))
    loaded.load_state_dict(saved.state_dict())
    for layer, other in zip(layers_of(loaded.online), layers_of(saved.online), strict=True):
        assert layer.held is not None
        assert other.held is not None
        assert torch.equal(layer.held, other.held)
        assert torch.equal(layer.held, layer.weight().to(layer.held.dtype))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_gradients_in_bfloat16_are_those_in_float32(parameterization: str) -> None:
    """Not the weights after a few updates: Adamax moves those little, whatever the gradients."""
    config = dataclasses.replace(CONFIG, parameterization=parameterization)
    rounded, precise = (first_gradients(with_precision(config, name)) for name in ("bfloat16", "float32"))
    for one, other in zip(rounded, precise, strict=True):
        assert 0 < (one - other).norm() < 0.15 * other.norm()


def with_precision(config: Config, precision: Literal["float32", "bfloat16"]) -> Config:
    return dataclasses.replace(config, learning=dataclasses.replace(config.learning, precision=precision))


def first_gradients(config: Config) -> list[Tensor]:
    """What the first update hands to the optimizer."""
    bench = Bench(config)
    given: list[Tensor] = []
    bench.learner.networks.optimizer.apply = given.extend  # type: ignore[method-assign]
    bench.learner.learn(1)
    return given


@pytest.mark.parametrize(("clips", "seen"), [(True, [-1.0, -0.5, 0.5, 1.0]), (False, [-3.0, -0.5, 0.5, 3.0])])
def test_rewards_are_clipped_on_both_sides(clips: bool, seen: list[float]) -> None:
    bench = Bench(dataclasses.replace(CONFIG, learning=dataclasses.replace(CONFIG.learning, clip_rewards=clips)))
    draws = Draws(0, "update", 4)
    draws.seek(0)
    discount = torch.tensor([1.0, 1.0, 0.0, 0.0])
    batch = bench.replay.sample(draws.take(1))._replace(
        r_t=torch.tensor([-3.0, -0.5, 0.5, 3.0]), discount_t=discount
    )
    with torch.no_grad():
        best = bench.learner.networks.target(batch.s_t).amax(dim=1)
        targets = bench.learner._targets_of(batch)
    torch.testing.assert_close(targets, torch.tensor(seen) + CONFIG.learning.discount * discount * best)


def test_metrics_are_means_over_the_updates_since_the_last_row() -> None:
    """The loss of a transition, and the value of an action."""
    learner = (bench := Bench()).learner
    losses: list[float] = []
    values: list[float] = []
    compute = learner._compute_loss

    def noted(s_tm1: Tensor, *rest: Tensor) -> Tensor:
        with torch.no_grad():
            values.append(float(learner.networks.online(s_tm1).mean()))
        loss = compute(s_tm1, *rest)
        losses.append(float(loss.detach()) / CONFIG.learning.batch_size)
        return loss

    learner._compute_loss = noted  # type: ignore[method-assign]
    for count in (3, 5):
        losses.clear()
        values.clear()
        bench.learner.learn(count)
        row = learner.networks.sums.take()
        assert len(losses) == count
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["q_mean"] == pytest.approx(np.mean(values), rel=1e-5)
    row = learner.networks.sums.take()
    assert (row["loss"], row["q_mean"]) == (None, None)


def test_max_q_is_the_mean_of_the_greatest_values() -> None:
    bench = Bench()
    bench.learner.learn(3)
    draws = Draws(0, "held_out", 32)
    draws.seek(0)
    states = bench.replay.sample(draws.take(1)).s_tm1
    with torch.no_grad():
        expected = np.mean([max(values) for values in bench.learner.networks.acting(states).tolist()])
    assert bench.learner.networks.max_q(states) == pytest.approx(expected, rel=1e-5)


def test_the_options_of_the_method_reach_the_learner() -> None:
    options = dataclasses.replace(CONFIG.network, log_scale=3.0, max_v_norm=0.3)
    spec = dataclasses.replace(SPEC, scale=1 / 255)
    networks = make_q_networks(dataclasses.replace(CONFIG, network=options), spec, CPU)
    assert networks.online.preprocess.scale == networks.target.preprocess.scale == spec.scale
    assert {weight.log_scale for _, weight in named_normalized(networks.online)} == {3.0}
    bench = Bench(dataclasses.replace(CONFIG, network=options))
    weights = [weight for _, weight in named_normalized(bench.learner.networks.online)]
    assert max(float(unit_norms(weight.v.detach()).max()) for weight in weights) > 0.31
    bench.learner.learn(1)
    assert all(unit_norms(weight.v).max() <= 0.3 * 1.0001 for weight in weights)
