"""MinAtar against its own wrapper, and its state."""

import warnings

import numpy as np
import pytest
from environment_tools import actions_for, make, play

from wn_rl.envs import minatar
from wn_rl.envs.base import lane_seed


@pytest.fixture(scope="module")
def wrapper():
    """minatar.Environment; importing it loads matplotlib and seaborn, which may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from minatar import Environment
    return Environment


@pytest.mark.parametrize("game", minatar.GAMES)
@pytest.mark.parametrize("published", [False, True])
def test_games_against_minatars_own_wrapper(game, published, wrapper):
    """published: with sticky actions and all six, as Young & Tian 2019."""
    probability = 0.1 if published else 0.0
    ours = make("minatar", game, 1, seed=8, repeat_action_probability=probability, full_action_set=published)
    theirs = wrapper(game, sticky_action_prob=probability, difficulty_ramping=True)
    offered = range(6) if published else theirs.minimal_action_set()
    assert ours.spec.num_actions == len(offered)
    actions = actions_for(ours, 600)
    games, over = 0, True
    for step, action in zip([ours.reset(), *play(ours, actions)], [0, *actions[:, 0]], strict=True):
        assert step.first[0] == over
        if over:
            theirs.seed(lane_seed(8, 0, games))
            theirs.reset()
            games += 1
            reward, over = 0, False
        else:
            # Without sticky actions the game itself: the wrapper would draw a number all the same.
            reward, over = (theirs if published else theirs.env).act(offered[action])
        assert step.reward[0] == reward
        assert step.discount[0] == (not over)
        np.testing.assert_array_equal(step.observation[0], theirs.state().transpose(2, 0, 1))
    assert games > 1 or game == "freeway"


def test_the_picture_shows_each_object_in_its_colour():
    environments = make("minatar", "breakout", 1)
    frame = environments.reset().observation[0]
    cells = environments.render()[::24, ::24]
    np.testing.assert_array_equal((cells > 0).any(axis=2), frame.any(axis=0))
    paddle, bricks = cells[9, 4], cells[1, 0]
    assert (paddle != bricks).any()


@pytest.mark.parametrize("game", ["asterix", "seaquest", "space_invaders"])
def test_games_get_harder(game):
    """The wrapper's default. Games of random actions end before it shows."""
    environments = make("minatar", game, 1)
    assert environments._lanes[0]._game.ramping is True
