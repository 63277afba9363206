"""Classic control against Gymnasium's own environments, and its state."""

import sys

import gymnasium
import pytest
from environment_tools import actions_for, check_restore, follow_gymnasium, make, one_line, play

from wn_rl.envs.gymnasium_lanes import CLASSIC


@pytest.mark.parametrize("game", CLASSIC)
def test_tasks_against_gymnasium(game):
    """Gymnasium's own time limit included, which bootstraps."""
    ours = make("classic", game, 1, seed=8)
    games, cut = follow_gymnasium(ours, gymnasium.make(CLASSIC[game][0]), num_steps=700, seed=8)
    assert games > 1
    assert cut > 0 or game == "cartpole"


@pytest.mark.parametrize("game", CLASSIC)
def test_state_of_every_task(game):
    original, restored = make("classic", game, 2), make("classic", game, 2)
    actions = actions_for(original, 560)
    check_restore(original, restored, actions, at=[1, 50, 123, 199, 200, 201, 499, 500, 501, 530])


def test_state_at_the_end_of_a_fallen_pole():
    original, restored = make("classic", "cartpole", 1), make("classic", "cartpole", 1)
    actions = actions_for(original, 100)
    steps = [original.reset(), *play(original, actions)]
    end = next(n for n, step in enumerate(steps) if step.discount[0] == 0)
    check_restore(original, restored, actions, at=[end - 1, end, end + 1])


def test_a_shorter_limit_counts_and_a_longer_one_does_not():
    for limit, length in ((7, 7), (1000, 200)):
        environments = make("classic", "mountain_car", 1, max_episode_frames=limit)
        environments.reset()
        steps = play(environments, actions_for(environments, 210))
        assert next(n for n, step in enumerate(steps) if step.first[0]) == length


def test_pictures_need_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)  # an import of it fails
    environments = make("classic", "cartpole", 1)
    environments.reset()
    with pytest.raises(ValueError, match="pygame") as error:
        environments.render()
    one_line(error)
