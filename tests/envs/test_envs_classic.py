"""Classic control against Gymnasium's own environments, and its state."""

import sys

import gymnasium
import pytest
from environment_tools import actions_for, follow_gymnasium, make, one_line, play

from wn_rl.envs.gymnasium_lanes import CLASSIC


@pytest.mark.parametrize("game", CLASSIC)
def test_tasks_against_gymnasium(game):
    """Gymnasium's own time limit included, which bootstraps."""
    ours = make("classic", game, 1, seed=8)
    games, cut = follow_gymnasium(ours, gymnasium.make(CLASSIC[game][0]), num_steps=700, seed=8)
    assert games > 1
    assert cut > 0 or game == "cartpole"


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
