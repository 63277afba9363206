"""Named starting points. A preset is a Config; every field of it can be changed on the command line."""

from wn_rl.config import (
    Config,
    EnvironmentConfig,
    EvaluationConfig,
    LearningConfig,
    NetworkConfig,
    OptimizerConfig,
)


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
    """The paper's settings on a GPU: 64 lanes at the same one update per four steps, each round one CUDA graph.

    What differs from `paper`: lanes in lockstep, and tests of 16 lanes, in which every started game counts.
    """
    return Config(
        game,
        preset="fast",
        num_envs=64,
        accelerate="cuda_graph",
        evaluation=EvaluationConfig(num_envs=16),
    )


def laptop(game: str) -> Config:
    """The paper's algorithm with its schedules scaled to a CPU: first learning in twenty minutes.

    What differs from `paper` is ours, in no paper: eight lanes, and shorter replay, exploration, target and
    test periods.
    """
    return Config(
        game,
        preset="laptop",
        steps=100_000,
        num_envs=8,
        log_period=2_000,
        checkpoint_period=25_000,
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
        network=NetworkConfig(name="minatar_cnn", stack=1),
        learning=LearningConfig(
            replay_capacity=100_000, replay_start=5_000, epsilon_steps=100_000, target_period=1_000
        ),
        evaluation=EvaluationConfig(period=50_000, steps=5_000, num_envs=4, video_period=5),
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
        network=NetworkConfig(name="mlp", stack=1),
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


PRESETS = {
    "paper": paper,
    "nature": nature,
    "fast": fast,
    "laptop": laptop,
    "minatar": minatar,
    "classic": classic,
}


def default_preset(suite: str, cuda: bool) -> str:
    """The preset of a suite: for Atari `paper` where there is a CUDA device, else `laptop`."""
    if suite != "atari":
        return suite
    return "paper" if cuda else "laptop"
