"""Named starting points. A preset is a Config; every field of it can be changed on the command line."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from wn_rl.config import (
    ROLES,
    Config,
    EnvironmentConfig,
    EvaluationConfig,
    LearningConfig,
    NetworkConfig,
    OptimizerConfig,
    Role,
    resolved_initialization,
)
from wn_rl.registry import PRESETS

# Standard deviation of the first Q-values in presets for short runs. With the paper's 1 the values are too high
# for most of such a run (docs/weight_normalization.md).
OUTPUT_SCALE = 0.05


def paper(game: str) -> Config:
    """Salimans & Kingma 2016, section 5.4, on Mnih et al. 2015: the defaults of Config."""
    return Config(game)


def nature(game: str) -> Config:
    """Mnih et al. 2015, Extended Data Table 1: batch 32, centred RMSProp, plain layers, torch's initialization."""
    return Config(
        game,
        preset="nature",
        parameterization="normal",
        network=NetworkConfig(initialization="torch"),
        optimizer=OptimizerConfig(name="rmsprop_centered", learning_rate=2.5e-4),
        learning=LearningConfig(batch_size=32),
    )


def fast(game: str) -> Config:
    """The paper's settings on a GPU: 64 lanes, still one update per four steps, each round one CUDA graph.

    What differs from `paper`: lanes in lockstep, smaller first Q-values, and evaluations of 16 lanes, whose
    started episodes all count.
    """
    return Config(
        game,
        preset="fast",
        num_envs=64,
        accelerate="cuda_graph",
        network=NetworkConfig(output_scale=OUTPUT_SCALE),
        evaluation=EvaluationConfig(num_envs=16),
    )


def laptop(game: str) -> Config:
    """The paper's algorithm with its schedules scaled to a CPU: first learning in 15 to 25 minutes.

    What differs from `paper` is not from a paper: eight lanes, smaller first Q-values, and shorter replay,
    exploration, target and evaluation periods.
    """
    return Config(
        game,
        preset="laptop",
        steps=125_000,
        num_envs=8,
        log_period=2_000,
        checkpoint_period=25_000,
        network=NetworkConfig(output_scale=OUTPUT_SCALE),
        learning=LearningConfig(
            replay_capacity=200_000, replay_start=5_000, epsilon_steps=60_000, target_period=1_000
        ),
        evaluation=EvaluationConfig(period=25_000, steps=5_000, num_envs=8, video_period=5),
    )


def minatar(game: str) -> Config:
    """MinAtar (Young & Tian 2019): the replay, start and exploration of its own DQN, the paper's learner."""
    return Config(
        game,
        suite="minatar",
        preset="minatar",
        steps=500_000,
        num_envs=4,
        log_period=5_000,
        checkpoint_period=50_000,
        torch_threads=1,
        environment=EnvironmentConfig(max_episode_frames=10_000),
        network=NetworkConfig(name="minatar_cnn", stack=1, output_scale=OUTPUT_SCALE),
        learning=LearningConfig(
            replay_capacity=100_000, replay_start=5_000, epsilon_steps=100_000, target_period=1_000
        ),
        evaluation=EvaluationConfig(period=50_000, steps=5_000, num_envs=4, video_period=5),
    )


def minatar_published(game: str) -> Config:
    """Young & Tian 2019, `examples/dqn.py` of MinAtar: sticky actions, all six, an update of 32 each step.

    The optimizer and the layers are the paper's: theirs is centred RMSProp with a momentum of 0.95.
    """
    base = minatar(game)
    environment = EnvironmentConfig(
        repeat_action_probability=0.1,  # the wrapper's sticky_action_prob
        full_action_set=True,  # its num_actions is always 6
        max_episode_frames=5_000_000,  # NUM_FRAMES: no episode is cut
    )
    learning = LearningConfig(
        batch_size=32,  # BATCH_SIZE
        clip_rewards=False,  # world_dynamics hands rewards on as they are
        update_period=1,  # TRAINING_FREQ
        target_period=1_000,  # TARGET_NETWORK_UPDATE_FREQ, in updates
        replay_capacity=100_000,  # REPLAY_BUFFER_SIZE
        replay_start=5_000,  # REPLAY_START_SIZE
        epsilon_steps=100_000,  # FIRST_N_FRAMES; END_EPSILON is 0.1
    )
    steps = 5_000_000  # NUM_FRAMES
    return dataclasses.replace(
        base,
        preset="minatar_published",
        steps=steps,
        num_envs=1,
        environment=environment,
        network=NetworkConfig(name="minatar_cnn", stack=1),
        learning=learning,
    )


def dopamine(game: str) -> Config:
    """Castro et al. 2018, `dqn.gin` of Dopamine: its environment, schedules and evaluations.

    The optimizer, the loss and the layers are the papers': theirs are Adam and the squared error.
    """
    environment = EnvironmentConfig(
        life_loss_terminates=False,  # terminal_on_life_loss of AtariPreprocessing
        repeat_action_probability=0.25,  # sticky_actions
    )
    learning = LearningConfig(
        batch_size=32,  # ReplayBuffer.batch_size
        target_period=8_000,  # target_update_period
        replay_start=20_000,  # min_replay_history
        epsilon_end=0.01,  # epsilon_train
        epsilon_steps=250_000,  # epsilon_decay_period
    )
    return Config(
        game,
        preset="dopamine",
        environment=environment,
        learning=learning,
        evaluation=EvaluationConfig(epsilon=0.001),  # epsilon_eval; its 125,000 steps are ours too
    )


def classic(game: str) -> Config:
    """Gymnasium's classic control: a small network on plain vectors, for a first look in a minute."""
    return Config(
        game,
        suite="classic",
        preset="classic",
        steps=100_000,
        num_envs=4,
        log_period=2_000,
        checkpoint_period=20_000,
        torch_threads=1,
        network=NetworkConfig(name="mlp", stack=1, output_scale=OUTPUT_SCALE),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        learning=LearningConfig(
            replay_capacity=50_000,
            replay_start=1_000,
            epsilon_steps=20_000,
            target_period=1_000,
            clip_rewards=False,
        ),
        evaluation=EvaluationConfig(period=10_000, steps=5_000, num_envs=4, video_period=0),
    )


def vectors(env_id: str) -> Config:
    """Any Gymnasium environment that shows vectors: the settings of `classic`."""
    return dataclasses.replace(classic(env_id), suite="gymnasium", preset="vectors")


def grids(env_id: str) -> Config:
    """Any Gymnasium environment that shows images too small for `images`: the settings of `minatar`."""
    return dataclasses.replace(minatar(env_id), suite="gymnasium", preset="grids")


def images(env_id: str) -> Config:
    """Any Gymnasium environment that shows images of 36x36 and more: the settings of `laptop`.

    The replay has a quarter of the frames, since colour frames take three times the memory.
    """
    base = laptop(env_id)
    learning = dataclasses.replace(base.learning, replay_capacity=50_000)
    return dataclasses.replace(base, suite="gymnasium", preset="images", learning=learning)


def default_preset(suite: str, cuda: bool) -> str:
    """The preset of a suite of ours: for Atari `paper` if there is a CUDA device, else `laptop`."""
    return suite if suite != "atari" else "paper" if cuda else "laptop"


def preset_for_frames(frame_shape: tuple[int, ...]) -> str:
    """The preset for a Gymnasium environment that shows such frames: its network can take them.

    >>> preset_for_frames((4,)), preset_for_frames((3, 96, 96)), preset_for_frames((10, 10))
    ('vectors', 'images', 'grids')
    """
    smallest = min(frame_shape[-2:]) if len(frame_shape) > 1 else 0
    if smallest < 3:
        return "vectors"
    return "images" if smallest >= 36 else "grids"


def _joined(value: Any) -> Any:
    """Several words as one, as they are typed in an arm."""
    return ",".join(value) if isinstance(value, list | tuple) else value


METHOD_OPTIONS: dict[str, float | str | None] = {
    setting.name: _joined(typing.cast(Any, setting.default))
    for setting in dataclasses.fields(NetworkConfig)
    if ROLES[f"network.{setting.name}"] is Role.METHOD
}
"""Fields of NetworkConfig that say how layers are parameterized, with their defaults: with the parameterization
and the learning rate, what arms of a comparison differ in."""


def method_options(config: Mapping[str, Any]) -> dict[str, float | str]:
    """Those of `METHOD_OPTIONS` in which a run, by its config as JSON values, differs from its preset.

    >>> from wn_rl.config import to_json
    >>> method_options(to_json(Config("breakout", network=NetworkConfig(log_scale=3.0))))
    {'log_scale': 3.0}
    """
    name, network, game = config["parameterization"], config["network"], str(config["game"])
    preset = (PRESETS[config["preset"]](game) if config.get("preset") in PRESETS else Config(game)).network
    own = {option: _joined(network.get(option, getattr(preset, option))) for option in METHOD_OPTIONS}
    usual = {option: _joined(getattr(preset, option)) for option in METHOD_OPTIONS}
    starts = [resolved_initialization(values["initialization"], name) for values in (own, usual)]
    return {
        option: value
        for option, value in own.items()
        if value != usual[option] and (option != "initialization" or starts[0] != starts[1])
    }
