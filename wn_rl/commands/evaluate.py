"""`wn-rl evaluate`: evaluate a trained agent and set published scores beside its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from wn_rl.commands._shared import RunPath, open_network, parse_flags, progress
from wn_rl.config import Config
from wn_rl.config_checks import Count, Fraction, Lanes
from wn_rl.errors import counted, say
from wn_rl.run.files import append_line
from wn_rl.run.folder import RunFolder

if TYPE_CHECKING:
    from wn_rl.agents.episodes import Episodes


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a trained agent: rewards are raw, starts are random, and a lost life ends no episode."""

    run: RunPath
    """The run's folder, or that of an exported agent."""
    episodes: Count = 30
    """Episodes, each of at most five minutes (Mnih et al. 2015: 30)."""
    epsilon: Fraction = 0.05
    """Exploration (Mnih et al. 2015: 0.05)."""
    num_envs: Lanes = 1
    """Lanes; several are faster."""
    network: Literal["best", "latest"] | None = None
    """Of a run: the network of its best evaluation in training, or that of its last checkpoint; None: best."""
    random_policy: bool = False
    """Also evaluate the random policy by the same protocol."""
    seed: int = 0
    """Seed of the episodes."""
    device: str = "cpu"
    """Where the network runs: auto, cpu, cuda or cuda:N."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl evaluate`."""
    options = parse_flags(Evaluate, arguments)
    from wn_rl.agents.evaluation import run_nature_evaluation
    from wn_rl.run.training import log_scores

    folder, config, network, name = open_network(options.run, options.network, options.device)
    own, scores = config, dict[str, Any]()
    policies = {name: options.epsilon} | ({"random policy": 1.0} if options.random_policy else {})
    for policy, epsilon in policies.items():
        evaluation = replace(config.evaluation, epsilon=epsilon, num_envs=options.num_envs)
        config, tick = replace(config, evaluation=evaluation), progress(policy)
        count, seed = options.episodes, options.seed
        played = run_nature_evaluation(config, network, seed=seed, num_episodes=count, tick=tick)
        _record(folder, config, policy, seed, played)
        key = f"evaluate/{policy.partition(',')[0].replace(' ', '_')}"
        scores |= {f"{key}/return_mean": played.return_mean, f"{key}/return_std": played.return_std}
        scores[f"{key}/episodes"] = len(played.returns)
    log_scores(own, folder, scores)
    if config.suite == "atari":
        _print_references(config.game)
    return 0


def _record(folder: RunFolder, config: Config, policy: str, seed: int, played: "Episodes") -> None:
    """Print a result, then append it to evaluations.jsonl, with all that it takes to repeat it."""
    from wn_rl.agents.evaluation import nature_max_frames

    evaluation, returns = config.evaluation, played.returns
    print(
        f"{config.game}, {policy}: {played.return_mean:.2f} mean raw return of {counted(len(returns), 'episode')} "
        f"(standard deviation {played.return_std:.2f}, minimum {min(returns):g}, maximum {max(returns):g}; "
        f"epsilon {evaluation.epsilon:g})"
    )
    result = {
        "policy": policy,
        "game": config.game,
        "suite": config.suite,
        "parameterization": config.parameterization,
        "protocol": "nature",
        "epsilon": evaluation.epsilon,
        "seed": seed,
        "num_envs": evaluation.num_envs,
        "max_episode_frames": nature_max_frames(config),
        "return_mean": played.return_mean,
        "return_std": played.return_std,
        "returns": list(returns),
    }
    try:
        append_line(folder.path / "evaluations.jsonl", json.dumps(result))
    except OSError as error:
        say(f"warning: the result is not in the run's folder: {error}")


def _print_references(game: str) -> None:
    """Print published scores beside ours, for the games that the papers share."""
    from wn_rl.report.published_scores import REFERENCE_SCORES, SOURCES

    if game in REFERENCE_SCORES:
        print("published scores, some by other protocols; agents were trained on about 200M frames:")
    for source, score in REFERENCE_SCORES.get(game, {}).items():
        print(f"  {score:>10,.1f}  {SOURCES[source]}")
