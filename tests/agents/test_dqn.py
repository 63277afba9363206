"""The training loop on probes with known answers: schedules at their exact steps, values, determinism."""

import dataclasses
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nn_tools import PLAIN
from probes import Chain
from resume_tools import assert_same

from wn_rl import envs
from wn_rl.agents import replay
from wn_rl.agents.dqn import DQN, Targets, epsilon_at, q_learning, updates_due
from wn_rl.agents.evaluation import make_evaluation_environments, run_nature_evaluation
from wn_rl.agents.experiment import make_dqn, make_training_environments, restore, state_of, take_metrics
from wn_rl.agents.q_networks import Values
from wn_rl.agents.replay import Batch, Draws
from wn_rl.config import (
    Config,
    EnvironmentConfig,
    EvaluationConfig,
    LearningConfig,
    NetworkConfig,
    OptimizerConfig,
)
from wn_rl.seeding import derive_seed

EXAMPLES = Path(__file__).parents[2] / "examples"
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


def play_in(make: Callable[[int, int], Chain], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put environments of a number of lanes and a seed in the place of the config's."""
    monkeypatch.setattr(envs, "make", lambda suite, game, rules, *, num_envs, seed: make(num_envs, seed))


@pytest.fixture(autouse=True)
def _probes(monkeypatch: pytest.MonkeyPatch) -> None:
    play_in(Chain, monkeypatch)


def trained(
    config: Config, after_step: Callable[[DQN], None] = lambda experiment: None, targets: Targets = q_learning
) -> DQN:
    experiment = make_dqn(config, torch.device("cpu"), targets)
    experiment.run(config.steps, after_step)
    return experiment


def chain_values(experiment: DQN) -> np.ndarray:
    with torch.no_grad():
        return experiment.learner.networks.acting(torch.eye(4)[:, None]).numpy()


def double_q_learning() -> Targets:
    """That of examples/double_dqn.py."""
    spec = importlib.util.spec_from_file_location("double_dqn", EXAMPLES / "double_dqn.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double_q_learning  # type: ignore[no-any-return]


def test_double_q_learning_values_what_the_online_network_chooses() -> None:
    """By hand: 1 + 0.5 * 20, and 2 + 0 where the episode ended."""
    batch = Batch(*[torch.zeros(2)] * 6)._replace(
        r_t=torch.tensor([1.0, 2.0]), discount_t=torch.tensor([0.5, 0.0])
    )
    online, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[30.0, 20.0], [5.0, 7.0]])
    found = double_q_learning()(batch, lambda states: target, lambda states: online)
    assert found.tolist() == [11.0, 2.0]


def test_targets_of_ones_own_ask_the_online_network_of_each_update() -> None:
    """Those of Q-learning are computed once for all updates of a round."""
    asked: list[torch.Tensor] = []
    double = double_q_learning()

    def noted(batch: Batch, target: Values, online: Values) -> torch.Tensor:
        asked.append(online(torch.eye(4)[:, None]))
        return double(batch, target, online)

    config = dataclasses.replace(CHAIN, num_envs=8, steps=480)  # rounds of two updates
    dqn = make_dqn(config, torch.device("cpu"), noted)
    dqn.run(config.steps, lambda dqn: None)
    assert len(asked) == dqn.learner.num_updates > 10
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(asked))


@pytest.mark.parametrize(
    ("parameterization", "targets"), [("normal", double_q_learning()), ("weight_norm", q_learning)]
)
def test_chain_is_solved_to_its_exact_values(parameterization: str, targets: Targets) -> None:
    learning = dataclasses.replace(LEARNING, update_period=2, target_period=100)
    optimizer = OptimizerConfig(learning_rate=1e-3)
    config = dataclasses.replace(
        CHAIN, steps=10_000, parameterization=parameterization, learning=learning, optimizer=optimizer
    )
    right = 0.9 ** np.arange(3, -1, -1)
    left = 0.9 * np.concatenate([right[:1], right[:-1]])
    expected = np.stack([left, right], axis=1)
    np.testing.assert_allclose(chain_values(trained(config, targets=targets)), expected, atol=0.06)


def test_a_target_that_is_never_copied_shows_exactly_one_backup() -> None:
    """With a target of zeros, going right is worth 1 in the last cell and nothing anywhere else."""
    config = dataclasses.replace(
        CHAIN, steps=8_000, learning=dataclasses.replace(LEARNING, target_period=1_000_000)
    )
    experiment = make_dqn(config, torch.device("cpu"))

    def zero_target(experiment: DQN) -> None:
        for tensor in experiment.learner.networks.target.state_dict().values():
            tensor.zero_()

    experiment.run(config.steps, zero_target)
    expected = np.zeros((4, 2))
    expected[3, 1] = 1
    np.testing.assert_allclose(chain_values(experiment), expected, atol=0.06)


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_updates_keep_one_to_four_and_the_target_follows_every_50(num_envs: int) -> None:
    config = dataclasses.replace(CHAIN, num_envs=num_envs, steps=1_600)
    seen: list[tuple[int, int]] = []
    copies: list[int] = []
    target_before: list[torch.Tensor] = []

    def watch(experiment: DQN) -> None:
        seen.append((experiment.num_steps, experiment.learner.num_updates))
        weight = torch.cat(
            [tensor.flatten() for tensor in experiment.learner.networks.target.state_dict().values()]
        )
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
    steps = (0, 50_000, 550_000, 1_050_000, 9_000_000)
    assert [epsilon_at(step, learning) for step in steps] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_updates_at_their_exact_steps() -> None:
    learning = LearningConfig(replay_start=50_000)
    assert [updates_due(steps, learning) for steps in (0, 50_000, 50_003, 50_004, 50_008, 90_000)] == [
        0, 0, 0, 1, 2, 10_000,
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not() -> None:
    config = dataclasses.replace(CHAIN, num_envs=2)
    one = state_of(trained(config))
    assert_same(one, state_of(trained(config)))
    with pytest.raises(AssertionError, match="online"):
        assert_same(one["learner"], state_of(trained(dataclasses.replace(config, seed=2)))["learner"])


def test_every_random_number_of_a_run_comes_from_its_seed() -> None:
    """Of the games, of exploration, of the batches, of the states set apart, and of the first weights."""

    def numbers(seed: int) -> list[object]:
        experiment = make_dqn(dataclasses.replace(CHAIN, num_envs=4, seed=seed), torch.device("cpu"))
        first = experiment.environments.reset()
        explored = [experiment.actor.act(first, 1.0).tolist() for _ in range(8)]
        for _ in range(110):
            experiment.replay.add(first, np.zeros(4, dtype=np.int64))
        experiment.learner._batches._draws.seek(0)
        batch = experiment.learner._batches._draws.take(1).tolist()
        games = experiment.environments.state_dict()["generator"]
        weights = [parameter.tolist() for parameter in experiment.learner.networks.online.parameters()]
        return [games, explored, batch, weights]

    one, again, other = numbers(1), numbers(1), numbers(2)
    assert one == again
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


def test_the_states_that_are_set_apart_are_those_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[int, str]] = []

    class Noted(Draws):
        def __init__(self, seed: int, purpose: str, *rest: Any) -> None:
            keys.append((seed, purpose))
            super().__init__(seed, purpose, *rest)

    monkeypatch.setattr(replay, "Draws", Noted)
    for seed in (1, 2):
        trained(dataclasses.replace(CHAIN, steps=402, seed=seed))
    assert [purpose for _, purpose in keys] == ["update", "initialize", "held_out"] * 2
    assert [seed for seed, _ in keys] == [derive_seed(seed, "replay") for seed in (1, 1, 1, 2, 2, 2)]


def test_a_restored_experiment_goes_on_as_if_nothing_had_happened() -> None:
    config = dataclasses.replace(CHAIN, num_envs=2, steps=1_500)
    half = trained(dataclasses.replace(config, steps=1_000))
    again = make_dqn(config, torch.device("cpu"))
    start, stop = half.replay.oldest_row, half.replay.num_rows
    again.replay.write_rows(start, half.replay.read_rows(start, stop))
    restore(again, state_of(half))
    again.run(config.steps, lambda experiment: None)
    assert_same(state_of(again), state_of(trained(config)))


def test_parameterizations_start_from_the_same_function() -> None:
    values = []
    network = dataclasses.replace(CHAIN.network, initialization="data_dependent")
    for parameterization in PLAIN:
        config = dataclasses.replace(CHAIN, steps=402, parameterization=parameterization, network=network)
        values.append(chain_values(trained(config)))
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=1e-4)


def test_rewards_are_clipped_in_the_loss_and_raw_in_the_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rich(Chain):
        def recv(self):  # type: ignore[no-untyped-def]
            step = super().recv()
            return step._replace(reward=step.reward * 3)

    play_in(Rich, monkeypatch)
    config = dataclasses.replace(CHAIN, steps=8_000, optimizer=OptimizerConfig(learning_rate=1e-3))
    clipped = trained(config)
    assert chain_values(clipped)[3, 1] == pytest.approx(1.0, abs=0.06)
    assert max(clipped.episodes.recent_returns) == 3.0
    raw = dataclasses.replace(config, learning=dataclasses.replace(LEARNING, clip_rewards=False))
    assert chain_values(trained(raw))[3, 1] == pytest.approx(3.0, abs=0.2)


def test_a_lost_life_ends_the_values_and_not_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """A life is lost at every step: nothing is worth more than the next reward, and episodes continue."""
    play_in(lambda num_envs, seed: Chain(num_envs, seed, life_loss_every=1), monkeypatch)
    mortal = trained(dataclasses.replace(CHAIN, steps=8_000))
    expected = np.zeros((4, 2))
    expected[3, 1] = 1
    np.testing.assert_allclose(chain_values(mortal), expected, atol=0.06)
    assert max(mortal.episodes.recent_returns) == 1.0
    assert max(length for _, length in mortal.episodes._new) > 4


def test_the_rules_of_training_and_of_tests_reach_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, EnvironmentConfig, int, int]] = []

    def make(suite: str, game: str, rules: EnvironmentConfig, *, num_envs: int, seed: int) -> Chain:
        asked.append((suite, game, rules, num_envs, seed))
        return Chain(1, 0)

    monkeypatch.setattr(envs, "make", make)
    rules = EnvironmentConfig(max_episode_frames=20_000, resize="bilinear", processes=3)
    config = dataclasses.replace(CHAIN, environment=rules)
    make_training_environments(config)
    make_training_environments(dataclasses.replace(config, seed=2))
    assert asked[0][:4] == asked[1][:4] == ("classic", "chain", rules, 1)
    assert asked[0][4] != asked[1][4]
    make_evaluation_environments(config, num_envs=2, seed=7)
    assert asked[2] == ("classic", "chain", rules, 2, 7)
    for most, expected in ((20_000, 18_000), (9_000, 9_000)):  # five minutes, or less where the run has less
        short = dataclasses.replace(config, environment=dataclasses.replace(rules, max_episode_frames=most))
        run_nature_evaluation(short, torch.nn.Linear(4, 2), seed=7, num_episodes=0)
        assert asked[-1][2] == dataclasses.replace(rules, max_episode_frames=expected)


def test_a_loss_that_is_no_number_stops_with_a_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = trained(dataclasses.replace(CHAIN, steps=500))
    with torch.no_grad():
        next(experiment.learner.networks.online.parameters()).fill_(float("nan"))
    experiment.run(510, lambda experiment: None)
    with pytest.raises(FloatingPointError, match=r"not finite are: .*dense.*rate is 0\.003"):
        take_metrics(experiment)


def test_a_row_tells_the_games_since_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are the emulator's; the last hundred games are of any row."""

    def make(num_envs: int, seed: int) -> Chain:
        chain = Chain(num_envs, seed)
        chain.spec = dataclasses.replace(chain.spec, frames_per_step=4)
        return chain

    play_in(make, monkeypatch)
    learning = dataclasses.replace(LEARNING, replay_capacity=10_000, replay_start=9_000)
    experiment = trained(dataclasses.replace(CHAIN, num_envs=8, steps=8_000, learning=learning))
    games = list(experiment.episodes._new)
    returns, lengths = np.array(games).T
    assert len(games) > 100
    row = take_metrics(experiment)
    assert (row["step"], row["frames"], row["train/episodes"]) == (8_000, 32_000, len(games))
    assert row["train/return"] == pytest.approx(returns.mean())
    assert row["train/length"] == pytest.approx(lengths.mean())
    assert row["train/return_last_100"] == pytest.approx(returns[-100:].mean())
    again = take_metrics(experiment)
    assert (again["train/episodes"], again["train/return"], again["train/length"]) == (0, None, None)
    assert again["train/return_last_100"] == row["train/return_last_100"]


def test_a_game_lost_on_resume_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Chain):
        def load_state_dict(self, state: dict[str, Any]) -> list[int]:
            super().load_state_dict(state)
            self.over[1] = True  # as `Environments` promises: the next row of a lost lane is `first`
            return [1]

    play_in(Forgetful, monkeypatch)
    config = dataclasses.replace(CHAIN, num_envs=2, steps=300)
    whole = trained(config)
    assert whole.episodes.running.unfinished(1)[1] > 0
    again = make_dqn(config, torch.device("cpu"))
    assert restore(again, state_of(whole)) == [1]
    assert again.episodes.running.unfinished(0) == whole.episodes.running.unfinished(0)
    assert again.episodes.running.unfinished(1) == (0.0, 0)


def test_emulators_run_while_the_learner_works_on_what_came_before() -> None:
    experiment = make_dqn(CHAIN, torch.device("cpu"))
    order: list[str] = []

    def note(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def noted(*arguments: Any) -> Any:
            order.append(name)
            return call(*arguments)

        setattr(owner, name, noted)

    note(experiment.replay, "add")
    note(experiment, "learn")
    for name in ("send", "recv"):
        note(experiment.environments, name)
    experiment.run(2, lambda experiment: None)
    assert order == ["send", "add", "learn", "recv"] * 2
