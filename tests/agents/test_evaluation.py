import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wn_rl import envs
from wn_rl.agents import evaluation
from wn_rl.agents.actor import Actor
from wn_rl.agents.episodes import EpisodeReturns, Episodes, Overestimation
from wn_rl.agents.evaluation import (
    NATURE_EPISODES,
    Interrupted,
    evaluate_episodes,
    evaluate_steps,
    run_epoch_evaluation,
    run_nature_evaluation,
)
from wn_rl.config import EvaluationConfig
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.presets import classic
from wn_rl.seeding import derive_seed


class Tape:
    """Lanes whose games last a scripted number of steps; each step gives reward 1. Endless after the script."""

    spec = EnvironmentSpec(2, (1,), "float32", 1.0, 1, ("a", "b"))

    def __init__(self, lengths: Sequence[Sequence[int]]) -> None:
        self.num_envs = len(lengths)
        self.lengths = [list(lane) for lane in lengths]
        self.age = [0] * self.num_envs
        self.sent = 0

    def _step(self, first: list[bool]) -> Step:
        zeros = np.zeros(self.num_envs, np.float32)
        over = [bool(lane) and age == lane[0] for lane, age in zip(self.lengths, self.age, strict=True)]
        return Step(
            zeros[:, None],
            np.where(first, 7.0, 1.0).astype(np.float32),
            np.where(over, 0.0, 1.0).astype(np.float32),
            np.array(first),
        )

    def reset(self) -> Step:
        return self._step([True] * self.num_envs)

    def send(self, actions: np.ndarray) -> None:
        self.sent += 1

    def recv(self) -> Step:
        first = []
        for lane, age in enumerate(self.age):
            over = bool(self.lengths[lane]) and age == self.lengths[lane][0]
            first.append(over)
            if over:
                self.lengths[lane].pop(0)
                self.age[lane] = 0
            else:
                self.age[lane] += 1
        return self._step(first)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a test must not use {name}")


def actor_for(tape: Tape) -> Actor:
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    return Actor(network, tape.num_envs, tape.spec, stack=1, seed=1)


def test_returns_are_raw_sums_between_firsts_and_void_on_a_first_row() -> None:
    episodes = EpisodeReturns(2)
    rows = [
        ([9.0, 9.0], [True, True]),
        ([2.0, -5.0], [False, False]),
        ([0.5, 1.0], [False, False]),
        ([9.0, 1.0], [True, False]),
        ([1.0, 9.0], [False, True]),
    ]
    ended = [
        episodes.add(Step(np.zeros((2, 1)), np.array(reward, np.float32), np.ones(2, np.float32), np.array(first)))
        for reward, first in rows
    ]
    assert ended == [[], [], [], [(0, 2.5, 2)], [(1, -3.0, 3)]]
    assert episodes.unfinished(0) == (1.0, 1)


@pytest.mark.parametrize(
    ("lanes", "num_steps", "returns", "sent"),
    [
        ([[3, 4, 100]], 20, [3, 4], 21),  # completed games only; one row more shows that the last one was cut
        ([[3, 16, 100]], 20, [3, 16], 21),  # 3 steps, 1 to start anew, 16 steps: the last step is the game's last
        ([[3, 16, 100]], 19, [3], 20),
        ([[3, 16, 100]], 21, [3, 16], 22),
        ([[100]], 20, [20], 21),  # the partial game, since none was completed
        # Two lanes spend two steps a row: one starts games while fewer than 10 are spent, and all are finished.
        ([[2, 2, 2, 2, 2], [30, 5]], 10, [2, 2, 30], 31),
    ],
)
def test_the_games_of_an_epoch(lanes: list[list[int]], num_steps: int, returns: list[int], sent: int) -> None:
    tape, ticks = Tape(lanes), list[None]()
    games = evaluate_steps(actor_for(tape), tape, 0.05, num_steps, lambda: ticks.append(None))
    assert sorted(games.returns) == sorted(games.lengths) == returns
    assert (tape.sent, len(ticks)) == (sent, num_steps if len(lanes) == 1 else sent)


def test_nature_starts_exactly_the_games_asked_for() -> None:
    tape = Tape([[5, 5, 5], [1, 1, 1], [9, 9, 9]])
    games = evaluate_episodes(actor_for(tape), tape, 0.05, 4, lambda: None)
    assert sorted(games.returns) == [1.0, 1.0, 5.0, 9.0]  # one each, and lane 1, free first, a second


def test_mean_and_deviation_and_none_without_a_game() -> None:
    games = Episodes((1.0, 3.0), (5, 6))
    assert (games.return_mean, games.return_std, games.length_mean) == (2.0, 1.0, 5.5)
    tape = Tape([[5]])
    games = evaluate_episodes(actor_for(tape), tape, 0.05, 0, lambda: None)
    assert (games.return_mean, games.return_std, games.length_mean) == (None, None, None)


def test_the_tick_may_stop_a_test() -> None:
    def stop() -> None:
        raise Interrupted

    tape = Tape([[5]])
    with pytest.raises(Interrupted):
        evaluate_episodes(actor_for(tape), tape, 0.05, 3, stop)


def test_a_test_is_played_by_the_config_and_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(Tape):
        def close(self) -> None:
            pass

    asked: list[tuple[int, int]] = []
    played: list[tuple[object, ...]] = []

    def make(suite: str, game: str, rules: object, *, num_envs: int, seed: int) -> Closed:
        asked.append((num_envs, seed))
        return Closed([[1]] * num_envs)

    def note(actor: Actor, environments: Tape, epsilon: float, amount: int, *others: object) -> Episodes:
        played.append((actor.seed, actor.network, environments.num_envs, epsilon, amount))
        return Episodes((1.0,), (1,))

    monkeypatch.setattr(envs, "make", make)
    monkeypatch.setattr(evaluation, "evaluate_steps", note)
    monkeypatch.setattr(evaluation, "evaluate_episodes", note)
    config = dataclasses.replace(
        classic("cartpole"), evaluation=EvaluationConfig(epsilon=0.3, steps=77, num_envs=2)
    )
    network = nn.Linear(1, 2)
    for seed in (7, 8):
        assert run_epoch_evaluation(config, network, seed=seed, tick=lambda: None).returns == (1.0,)
        assert run_nature_evaluation(config, network, seed=seed).returns == (1.0,)
        assert asked[-2:] == [(2, seed)] * 2
        actor_seed = derive_seed(seed, "test_actor")
        assert played[-2:] == [(actor_seed, network, 2, 0.3, 77), (actor_seed, network, 2, 0.3, NATURE_EPISODES)]


def test_the_nature_protocol_is_thirty_games_of_five_minutes() -> None:
    assert (evaluation.NATURE_EPISODES, evaluation.NATURE_MAX_FRAMES) == (30, 5 * 60 * 60)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), num_envs=st.integers(1, 3), num_steps=st.integers(1, 12), clips=st.booleans())
def test_overestimation_equals_its_definition(seed: int, num_envs: int, num_steps: int, clips: bool) -> None:
    """Against returns computed backwards: ends, lost lives, cut episodes, an unfinished rest."""
    random = np.random.default_rng(seed)
    values, differences = Overestimation(num_envs, 0.9, clips), []
    first = random.random((num_steps, num_envs)) < 0.3
    first[0] = True
    reward = random.normal(0, 2, (num_steps, num_envs)).astype(np.float32)
    discount = (random.random((num_steps, num_envs)) < 0.7).astype(np.float32)
    max_q = random.normal(size=(num_steps, num_envs)).astype(np.float32)
    for row in zip(reward, discount, first, max_q, strict=True):
        values.add(Step(np.zeros(num_envs), *row[:3]), row[3])
    r_t = np.clip(reward, -1, 1) if clips else reward
    for lane in range(num_envs):
        rest = max_q[-1, lane]
        for t in range(num_steps - 2, -1, -1):
            if first[t + 1, lane]:
                rest = max_q[t, lane]  # of the last state of an episode
            else:
                rest = r_t[t + 1, lane] + 0.9 * discount[t + 1, lane] * rest
                differences.append(max_q[t, lane] - rest)
    assert values.mean() == (pytest.approx(np.mean(differences), abs=1e-5) if differences else None)


def test_an_evaluation_says_how_far_values_are_above_returns() -> None:
    evaluation = EvaluationConfig(steps=400, num_envs=2, epsilon=1.0)
    config = dataclasses.replace(classic("cartpole"), evaluation=evaluation)

    def overestimation(value: float) -> float:
        network = nn.Linear(4, 2)
        nn.init.zeros_(network.weight)
        nn.init.constant_(network.bias, value)
        flat = nn.Sequential(nn.Flatten(), network)
        found = run_epoch_evaluation(config, flat, seed=3, tick=lambda: None).overestimation
        assert found is not None
        return found

    assert overestimation(2.0) - overestimation(0.0) == pytest.approx(2.0, abs=0.1)  # a few episodes are cut
    assert overestimation(0.0) < 0  # each step is rewarded
