"""`wn-rl play`: let a trained agent play one episode and write a video of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wn_rl.commands._shared import RunPath, open_network, parse_flags, progress
from wn_rl.config_checks import Fraction


@dataclass(frozen=True)
class Play:
    """Let a trained agent play one episode and write a video of it."""

    run: RunPath
    """The run's folder, or that of an exported agent."""
    video: Path | None = None
    """The mp4 file to write. None: videos/play-SEED.mp4 in the run's folder."""
    epsilon: Fraction = 0.05
    """Exploration."""
    network: Literal["best", "latest"] | None = None
    """Of a run: the network of its best evaluation in training, or that of its last checkpoint; None: best."""
    seed: int = 0
    """Seed of the episode."""
    device: str = "cpu"
    """Where the network runs: auto, cpu, cuda or cuda:N."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl play`."""
    options = parse_flags(Play, arguments)
    from wn_rl.run.play import record_episode

    folder, config, network, name = open_network(options.run, options.network, options.device)
    path = options.video or folder.videos / f"play-{options.seed}.mp4"
    tick = progress(name)
    played = record_episode(config, network, path, seed=options.seed, epsilon=options.epsilon, tick=tick)
    print(f"{path}: {config.game} by the {name}, return {played.returns[0]:g}")
    return 0
