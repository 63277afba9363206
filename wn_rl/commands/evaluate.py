"""`wn-rl evaluate`: test a trained agent and set published scores beside its own."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wn_rl.commands._shared import RunPath, open_network, parse_flags, progress
from wn_rl.config import Config
from wn_rl.config_checks import MAX_ENVS
from wn_rl.errors import counted, say
from wn_rl.run.files import append_line
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from wn_rl.agents.episodes import Episodes


@dataclass(frozen=True)
class Evaluate:
    """Test a trained agent on raw scores, lives ending nothing, from random starts."""

    run: RunPath
    """The run's folder, or that of an exported agent."""
    protocol: Literal["nature", "epoch"] = "nature"
    """nature: --episodes games of at most five minutes. epoch: as the tests in training."""
    episodes: int | None = None
    """Games of the nature protocol; None: 30 (Mnih et al. 2015)."""
    epsilon: float = 0.05
    """Exploration (Mnih et al. 2015: 0.05)."""
    num_envs: int = 1
    """Lanes; several are faster."""
    network: Literal["best", "latest"] | None = None
    """Of a run: the network of its best test in training, or that of its last checkpoint; None: best."""
    random_policy: bool = False
    """Also test the random policy by the same protocol."""
    seed: int = 0
    """Seed of the games."""
    device: str = "cpu"
    """Where the network runs: auto, cpu, cuda or cuda:N."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl evaluate`."""
    options = parse_flags(Evaluate, arguments)
    from wn_rl.agents.evaluation import NATURE_EPISODES, run_epoch_evaluation, run_nature_evaluation

    _check(options)
    folder, config, network, name = open_network(options.run, options.network, options.device)
    test = dataclasses.replace(config.evaluation, epsilon=options.epsilon, num_envs=options.num_envs)
    config = dataclasses.replace(config, evaluation=test)
    policies = [(name, options.epsilon)]
    if options.random_policy:
        policies.append(("random policy", 1.0))
    for policy, epsilon in policies:
        config = dataclasses.replace(config, evaluation=dataclasses.replace(test, epsilon=epsilon))
        tick = progress(policy)
        if options.protocol == "epoch":
            games = run_epoch_evaluation(config, network, seed=options.seed, tick=tick)
        else:
            count = options.episodes or NATURE_EPISODES
            games = run_nature_evaluation(config, network, seed=options.seed, num_episodes=count, tick=tick)
        _tell_result(folder, config, policy, options, games)
    if config.suite == "atari":
        _tell_references(config.game)
    return 0


def _check(options: Evaluate) -> None:
    """ValueError on what is no test."""
    if options.episodes is not None and options.protocol == "epoch":
        raise ValueError("--episodes is of --protocol nature: an epoch is steps, as many as in training's tests")
    if options.episodes is not None and options.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {options.episodes}")
    if not 0 <= options.epsilon <= 1:
        raise ValueError(f"--epsilon must be between 0 and 1, got {options.epsilon}")
    if not 1 <= options.num_envs <= MAX_ENVS:
        raise ValueError(f"--num-envs must be from 1 to {MAX_ENVS}, got {options.num_envs}")


def _tell_result(folder: RunFolder, config: Config, policy: str, options: Evaluate, games: "Episodes") -> None:
    """Print a result, then append it to evaluations.jsonl, with all that it takes to repeat it."""
    from wn_rl.agents.evaluation import nature_max_frames

    test, is_epoch = config.evaluation, options.protocol == "epoch"
    number, low, high = len(games.returns), min(games.returns), max(games.returns)
    print(
        f"{config.game}, {policy}: {games.return_mean:.2f} mean raw return of {counted(number, 'game')} "
        f"(standard deviation {games.return_std:.2f}, least {low:g}, greatest {high:g}; "
        f"{options.protocol} protocol, epsilon {test.epsilon:g})"
    )
    result = {
        "policy": policy,
        "game": config.game,
        "suite": config.suite,
        "parameterization": config.parameterization,
        "protocol": options.protocol,
        "epsilon": test.epsilon,
        "seed": options.seed,
        "num_envs": test.num_envs,
        "steps": test.steps if is_epoch else None,
        "max_episode_frames": config.environment.max_episode_frames if is_epoch else nature_max_frames(config),
        "return_mean": games.return_mean,
        "return_std": games.return_std,
        "returns": list(games.returns),
    }
    try:
        append_line(folder.path / "evaluations.jsonl", json.dumps(result))
    except OSError as error:
        say(f"warning: the result is not in the run's folder: {error}")


def _tell_references(game: str) -> None:
    """Print published scores beside ours, for the games that the papers share."""
    from wn_rl.report.published_scores import REFERENCE_SCORES, SOURCES

    if game in REFERENCE_SCORES:
        print("published, some by other protocols, the agents after 200M frames or so:")
    for source, score in REFERENCE_SCORES.get(game, {}).items():
        print(f"  {score:>10,.1f}  {SOURCES[source]}")
