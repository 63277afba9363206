"""What the tests of the environments share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wn_rl import envs
from wn_rl.config import EnvironmentConfig
from wn_rl.envs.base import Environments, Step, lane_seed


def make(suite: str, game: str, num_envs: int, *, seed: int = 3, **changes: Any) -> Environments:
    """`envs.make`; changes are of the rules."""
    return envs.make(suite, game, EnvironmentConfig(**changes), num_envs=num_envs, seed=seed)


def actions_for(environments: Environments, num_steps: int, seed: int = 0) -> np.ndarray:
    """Random actions [steps, E]; lane i's do not depend on the number of lanes."""
    lanes = [
        np.random.default_rng([seed, lane]).integers(environments.spec.num_actions, size=num_steps)
        for lane in range(environments.num_envs)
    ]
    return np.stack(lanes, axis=1)


def play(environments: Environments, actions: np.ndarray) -> list[Step]:
    """One Step for each row of actions."""
    steps = []
    for row in actions:
        environments.send(row)
        steps.append(environments.recv())
    return steps


def follow_gymnasium(
    ours: Environments,
    theirs: Any,
    *,
    num_steps: int,
    seed: int,
    see: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> tuple[int, int]:
    """Assert that one lane gives what Gymnasium's own stepping does: observations, rewards, ends and limits.

    seed: the lane's. see: an observation of theirs as we show it. Returns the games begun, and those cut.
    """
    actions = actions_for(ours, num_steps)
    games, cut, over = 0, 0, True
    for step, action in zip([ours.reset(), *play(ours, actions)], [0, *actions[:, 0]], strict=True):
        assert step.first[0] == over
        if over:
            observation, _ = theirs.reset(seed=lane_seed(seed, 0, games))
            games += 1
            reward, over = 0.0, False
        else:
            observation, reward, terminated, truncated, _ = theirs.step(theirs.action_space.start + action)
            assert step.discount[0] == (not terminated)
            over = terminated or truncated
            cut += truncated
        assert step.reward[0] == np.float32(reward)
        np.testing.assert_array_equal(step.observation[0], see(observation).astype(step.observation.dtype))
    return games, cut


def assert_equal_steps(left: list[Step], right: list[Step]) -> None:
    """Bit for bit, dtypes included."""
    assert len(left) == len(right)
    for number, pair in enumerate(zip(left, right, strict=True)):
        for name, one, other in zip(Step._fields, *pair, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other, err_msg=f"{name} of step {number}")


def saved_and_read(tree: Any) -> Any:
    """A deep copy of a state that holds nothing but what a checkpoint can."""
    if isinstance(tree, dict):
        assert all(type(name) is str for name in tree)
        return {name: saved_and_read(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [saved_and_read(value) for value in tree]
    if isinstance(tree, np.ndarray):
        assert tree.dtype.kind in "buif"
        return tree.copy()
    assert tree is None or isinstance(tree, bool | int | float | str | np.generic), f"{tree!r} cannot be saved"
    return tree


def check_restore(original: Environments, restored: Environments, actions: np.ndarray, at: list[int]) -> None:
    """Play the actions; from the state after each row in `at`, `restored` must play the rest equally."""
    steps, states = [original.reset()], {}
    for number, row in enumerate(actions):
        if number in at:
            states[number] = saved_and_read(original.state_dict())
        original.send(row)
        steps.append(original.recv())
    for number, state in states.items():
        restored.load_state_dict(state)
        assert_equal_steps(play(restored, actions[number:]), steps[number + 1 :])


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    """The error's message, which must fit on one line."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message
