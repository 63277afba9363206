"""Gymnasium's classic control with discrete actions, by short names and with words for its actions."""

import dataclasses

from wn_rl.envs import gymnasium_lanes
from wn_rl.envs.gymnasium_lanes import Description

IDS = {"acrobot": "Acrobot-v1", "cartpole": "CartPole-v1", "mountain_car": "MountainCar-v0"}
ACTION_NAMES = {
    "acrobot": ("TORQUE_NEGATIVE", "NOOP", "TORQUE_POSITIVE"),
    "cartpole": ("LEFT", "RIGHT"),
    "mountain_car": ("LEFT", "NOOP", "RIGHT"),
}


def games() -> list[str]:
    """The tasks of the suite."""
    return sorted(IDS)


def describe(game: str) -> Description:
    """The Gymnasium environment of a task."""
    description = gymnasium_lanes.describe(IDS[game])
    spec = dataclasses.replace(description.spec, action_meanings=ACTION_NAMES[game])
    return dataclasses.replace(description, spec=spec)
