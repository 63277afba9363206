"""The experiment loop on probes with known answers: schedules at their exact steps, values, determinism."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from probes import Chain

from wn_rl import envs
from wn_rl.agents.experiment import Experiment, epsilon_at, updates_due
from wn_rl.config import Config, EvaluationConfig, LearningConfig, NetworkConfig, OptimizerConfig

LEARNING = LearningConfig(
    batch_size=32,
    discount=0.9,
    target_period=200,
    replay_capacity=2_000,
    replay_start=400,
    epsilon_start=1.0,
    epsilon_end=1.0,
    epsilon_steps=1,
)
CHAIN = Config(
    "chain",
    suite="classic",  # `_probes` below puts the chain in its place
    steps=4_000,
    num_envs=1,
    learning=LEARNING,
    network=NetworkConfig(name="mlp", stack=1, init_states=128),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    evaluation=EvaluationConfig(held_out_states=32),
)


@pytest.fixture(autouse=True)
def _probes(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(suite: str, game: str, *, num_envs: int, seed: int, **rules: object) -> Chain:
        return Chain(num_envs, seed)

    monkeypatch.setattr(envs, "make", make)


def trained(config: Config, after_step: Callable[[Experiment], None] = lambda experiment: None) -> Experiment:
    experiment = Experiment(config, torch.device("cpu"))
    experiment.run(after_step)
    return experiment


def chain_values(experiment: Experiment) -> np.ndarray:
    with torch.no_grad():
        return experiment.learner.acting(torch.eye(4)[:, None]).numpy()


@pytest.mark.parametrize("parameterization", ["normal", "weight_norm"])
def test_chain_is_solved_to_its_exact_values(parameterization: str) -> None:
    learning = dataclasses.replace(LEARNING, update_period=2, target_period=100)
    optimizer = OptimizerConfig(learning_rate=1e-3)
    config = dataclasses.replace(
        CHAIN, steps=10_000, parameterization=parameterization, learning=learning, optimizer=optimizer
    )
    right = 0.9 ** np.arange(3, -1, -1)
    left = 0.9 * np.concatenate([right[:1], right[:-1]])
    expected = np.stack([left, right], axis=1)
    np.testing.assert_allclose(chain_values(trained(config)), expected, atol=0.06)


def test_a_target_that_is_never_copied_shows_exactly_one_backup() -> None:
    """With a target of zeros, going right is worth 1 in the last cell and nothing anywhere else."""
    config = dataclasses.replace(
        CHAIN, steps=8_000, learning=dataclasses.replace(LEARNING, target_period=1_000_000)
    )
    experiment = Experiment(config, torch.device("cpu"))

    def zero_target(experiment: Experiment) -> None:
        for tensor in experiment.learner.target.state_dict().values():
            tensor.zero_()

    experiment.run(zero_target)
    expected = np.zeros((4, 2))
    expected[3, 1] = 1
    np.testing.assert_allclose(chain_values(experiment), expected, atol=0.06)


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_updates_keep_one_to_four_and_the_target_follows_every_50(num_envs: int) -> None:
    config = dataclasses.replace(CHAIN, num_envs=num_envs, steps=1_600)
    seen: list[tuple[int, int]] = []
    copies: list[int] = []
    target_before: list[torch.Tensor] = []

    def watch(experiment: Experiment) -> None:
        seen.append((experiment.num_steps, experiment.learner.num_updates))
        weight = torch.cat([tensor.flatten() for tensor in experiment.learner.target.state_dict().values()])
        if target_before and not torch.equal(weight, target_before[-1]):
            copies.append(experiment.learner.num_updates)
        target_before.append(weight.clone())

    trained(config, watch)
    for steps, updates in seen:
        # After a row of E steps, the updates are those due before it: emulation and learning overlap.
        assert updates == updates_due(max(0, steps - num_envs), config.learning)
    initialized_at = next(updates for steps, updates in seen if steps - num_envs >= 400)
    assert copies[0] == initialized_at  # the copy of the data-dependent initialization
    slack = -(-num_envs // 4)
    assert len(copies[1:]) == seen[-1][1] // 50
    for number, update in enumerate(copies[1:], start=1):
        assert 50 * number <= update < 50 * number + slack


def test_epsilon_at_its_exact_steps() -> None:
    learning = LearningConfig(replay_start=50_000, epsilon_steps=1_000_000)
    assert epsilon_at(0, learning) == 1.0
    assert epsilon_at(50_000, learning) == 1.0
    assert epsilon_at(550_000, learning) == pytest.approx(0.55)
    assert epsilon_at(1_050_000, learning) == pytest.approx(0.1)
    assert epsilon_at(9_000_000, learning) == pytest.approx(0.1)


def test_updates_at_their_exact_steps() -> None:
    learning = LearningConfig(replay_start=50_000)
    assert [updates_due(steps, learning) for steps in (0, 50_000, 50_003, 50_004, 50_008, 90_000)] == [
        0, 0, 0, 1, 2, 10_000,
    ]  # fmt: skip


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)  # type: ignore[arg-type]
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)  # type: ignore[arg-type]
    return one == other


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not() -> None:
    config = dataclasses.replace(CHAIN, num_envs=2)
    one, other = trained(config).state_dict(), trained(config).state_dict()
    assert same(one, other)
    third = trained(dataclasses.replace(config, seed=2)).state_dict()
    assert not same(one["learner"]["online"], third["learner"]["online"])


def test_a_restored_experiment_goes_on_as_if_nothing_had_happened() -> None:
    config = dataclasses.replace(CHAIN, num_envs=2, steps=1_500)
    half = trained(dataclasses.replace(config, steps=1_000))
    again = Experiment(config, torch.device("cpu"))
    start, stop = half.replay.oldest_row, half.replay.num_rows
    again.replay.write_rows(start, half.replay.read_rows(start, stop))
    again.load_state_dict(half.state_dict())
    again.run(lambda experiment: None)
    assert same(again.state_dict(), trained(config).state_dict())


def test_parameterizations_start_from_the_same_function() -> None:
    values = []
    for parameterization in ("normal", "batch_norm", "weight_norm", "weight_norm_mean_only_bn"):
        config = dataclasses.replace(CHAIN, steps=402, parameterization=parameterization)
        values.append(chain_values(trained(config)))
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=1e-4)


def test_rewards_are_clipped_in_the_loss_and_raw_in_the_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rich(Chain):
        def recv(self):  # type: ignore[no-untyped-def]
            step = super().recv()
            return step._replace(reward=step.reward * 50)

    monkeypatch.setattr(envs, "make", lambda suite, game, *, num_envs, seed, **rules: Rich(num_envs, seed))
    clipped = trained(dataclasses.replace(CHAIN, steps=8_000))
    assert chain_values(clipped)[3, 1] == pytest.approx(1.0, abs=0.06)
    assert max(clipped.recent_returns) == 50.0


def test_a_loss_that_is_no_number_stops_with_a_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = trained(dataclasses.replace(CHAIN, steps=500))
    with torch.no_grad():
        next(experiment.learner.online.parameters()).fill_(float("nan"))
    experiment.config = dataclasses.replace(experiment.config, steps=510)
    experiment.run(lambda experiment: None)
    with pytest.raises(FloatingPointError, match=r"not finite are: .*dense.*rate is 0\.003"):
        experiment.metrics()
