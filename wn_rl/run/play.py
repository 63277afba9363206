"""A trained agent outside of training: one game, recorded or not."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from wn_rl.agents.episodes import Episodes
from wn_rl.agents.evaluation import evaluate_episodes, make_evaluation_actor, make_evaluation_environments
from wn_rl.config import Config
from wn_rl.run.video import VideoWriter


def record_episode(
    config: Config,
    network: nn.Module,
    path: Path,
    *,
    seed: int,
    tick: Callable[[], None],
    epsilon: float | None = None,
) -> Episodes:
    """Play one game by the rules of tests and write it to an mp4 file. tick may raise to stop it."""
    environments = make_evaluation_environments(config, num_envs=1, seed=seed)
    actor = make_evaluation_actor(config, network, environments, seed=seed)
    try:
        with VideoWriter(path, environments.spec.pictures_per_second) as video:

            def record() -> None:
                video.append(environments.render())
                tick()

            chosen = config.evaluation.epsilon if epsilon is None else epsilon
            return evaluate_episodes(actor, environments, chosen, 1, record)
    finally:
        environments.close()
