"""A trained agent outside of training: one game, recorded or not."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from wn_rl.agents.evaluation import Episodes, evaluate_episodes, make_test_actor, make_test_environments
from wn_rl.config import Config
from wn_rl.video import VideoWriter

EMULATOR_FRAMES_PER_SECOND = 60
SLOW_FRAMES_PER_SECOND = 10  # of games that are no real-time emulator


def record_game(
    config: Config,
    network: nn.Module,
    path: Path,
    *,
    seed: int,
    tick: Callable[[], None],
    epsilon: float | None = None,
) -> Episodes:
    """Play one game by the rules of tests and write it to an mp4 file. tick may raise to stop it."""
    environments = make_test_environments(config, num_envs=1, seed=seed)
    frames_per_step = environments.spec.frames_per_step
    fps = EMULATOR_FRAMES_PER_SECOND // frames_per_step if frames_per_step > 1 else SLOW_FRAMES_PER_SECOND
    actor = make_test_actor(config, network, environments, seed=seed)
    try:
        with VideoWriter(path, fps) as video:

            def record() -> None:
                video.append(environments.render())
                tick()

            chosen = config.evaluation.epsilon if epsilon is None else epsilon
            return evaluate_episodes(actor, environments, chosen, 1, record)
    finally:
        environments.close()
