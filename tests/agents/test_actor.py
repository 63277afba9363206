from typing import Any

import numpy as np
import pytest
import torch
from recorder import record
from torch import Tensor, nn

from wn_rl.agents.accelerate import Captured, Transfer
from wn_rl.agents.actor import DRAW_AHEAD, Actor, Stacks
from wn_rl.envs.base import EnvironmentSpec, Step

SPEC = EnvironmentSpec(3, (1,), "uint8", 1.0, 1, ("",) * 3)


class Recorder(nn.Module):
    """Remembers what it was asked; prefers action 2."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.seen: list[list] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.seen.append(frames[..., 0].tolist())
        return torch.tensor([[0.0, 1.0, 2.0]]).repeat(len(frames), 1)


def step(frames: list[int], first: list[bool]) -> Step:
    count = len(frames)
    return Step(
        np.array(frames, dtype=np.uint8)[:, None],
        np.zeros(count, np.float32),
        np.ones(count, np.float32),
        np.array(first),
    )


def test_stack_is_zero_before_a_first_in_its_own_lane_alone() -> None:
    network = Recorder()
    actor = Actor(network, 2, SPEC, stack=3, seed=1)
    for frames, first in [
        ([1, 11], [True, True]),
        ([2, 12], [False, False]),
        ([3, 13], [False, True]),
        ([4, 14], [False, False]),
    ]:
        actor.act(step(frames, first), 0.0)
    assert network.seen == [
        [[0, 0, 1], [0, 0, 11]],
        [[0, 1, 2], [0, 11, 12]],
        [[1, 2, 3], [0, 0, 13]],
        [[2, 3, 4], [0, 13, 14]],
    ]


def test_epsilon_zero_is_greedy_and_one_never_asks_the_network() -> None:
    network = Recorder()
    actor = Actor(network, 4, SPEC, stack=1, seed=1)
    assert actor.act(step([0] * 4, [True] * 4), 0.0).tolist() == [2] * 4
    network.seen.clear()
    actions = np.concatenate([actor.act(step([0] * 4, [False] * 4), 1.0) for _ in range(600)])
    assert network.seen == []
    counts = np.bincount(actions, minlength=3)
    assert abs(counts - 800).max() < 120  # five standard deviations
    assert actions.dtype == np.int64


def test_epsilon_is_the_share_of_random_actions() -> None:
    actor = Actor(Recorder(), 8, SPEC, stack=1, seed=1)
    actions = np.concatenate([actor.act(step([0] * 8, [False] * 8), 0.3) for _ in range(500)])
    assert abs((actions != 2).mean() - 0.3 * 2 / 3) < 0.03


def test_a_restored_actor_goes_on_with_the_same_actions() -> None:
    def play(actor: Actor, steps: int) -> list[list[int]]:
        return [actor.act(step([i % 200, i % 200 + 1], [i == 5, False]), 0.5).tolist() for i in range(steps)]

    whole = Actor(Recorder(), 2, SPEC, stack=3, seed=7)
    play(whole, 300)
    state = whole.state_dict()
    rest = play(whole, 300)
    again = Actor(Recorder(), 2, SPEC, stack=3, seed=7)
    again.load_state_dict(state)
    assert play(again, 300) == rest
    assert again.network.seen[-1] == whole.network.seen[-1]  # type: ignore[union-attr, index]
    other = Actor(Recorder(), 2, SPEC, stack=3, seed=8)
    assert play(other, 300) != play(Actor(Recorder(), 2, SPEC, stack=3, seed=7), 300)


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("capture", [None, record], ids=["eager", "captured"])
def test_stacks_on_a_device_are_those_in_host_memory(stack: int, capture: Any) -> None:
    """The device is a CPU here, as is the graph."""
    host, device = (Stacks(2, SPEC, stack, torch.device("cpu")) for _ in range(2))
    device._transfer = Transfer(torch.device("cpu"))
    if capture is not None:
        device._append = Captured(device._append_received, capture)
    generator = np.random.default_rng(0)
    for _ in range(20):
        shown = step(generator.integers(0, 255, 2).tolist(), (generator.random(2) < 0.3).tolist())
        host.push(shown)
        device.push(shown)
        assert torch.equal(host.frames, device.frames)


def test_random_actions_differ_by_lane_and_are_not_those_of_the_block_before() -> None:
    """A function of seed, step and lane, the same for any number of lanes."""

    def explored(lanes: int) -> np.ndarray:
        actor = Actor(Recorder(), lanes, SPEC, stack=1, seed=1)
        return np.array([actor.act(step([0] * lanes, [False] * lanes), 1.0) for _ in range(3 * DRAW_AHEAD)])

    actions = explored(4)
    np.testing.assert_array_equal(explored(2), actions[:, :2])
    assert len({tuple(lane) for lane in actions.T}) == 4
    assert len({block.tobytes() for block in np.split(actions, 3)}) == 3
