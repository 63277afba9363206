"""A trained agent outside of training: one episode as a video."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from wn_rl.agents.episodes import Episodes
from wn_rl.agents.evaluation import evaluate_episodes, evaluation_players
from wn_rl.config import Config
from wn_rl.run.video import video_writer


def record_episode(
    config: Config,
    network: nn.Module,
    path: Path,
    *,
    seed: int,
    tick: Callable[[], None],
    epsilon: float | None = None,
) -> Episodes:
    """Play one episode by the rules of evaluations and write it to an mp4 file. tick may raise to stop it."""
    with (
        evaluation_players(config, network, num_envs=1, seed=seed) as (actor, environments),
        video_writer(path, environments.spec.pictures_per_second) as append,
    ):

        def record() -> None:
            append(environments.render())
            tick()

        chosen = config.evaluation.epsilon if epsilon is None else epsilon
        return evaluate_episodes(actor, environments, chosen, 1, record)
