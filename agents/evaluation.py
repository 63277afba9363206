"""Evaluations of a network: raw reward, no life terminals, own environments and random numbers.

Two protocols. `epoch` (deep_q_rl; the paper's Table 3 is the maximum over epochs): a number of steps, and the
episodes completed in them. `nature` (Mnih et al. 2015, Extended Data Table 2): a number of episodes of at most
five minutes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from torch import nn

from wn_rl import envs
from wn_rl.agents.actor import Actor
from wn_rl.agents.episodes import EpisodeReturns, Episodes, Overestimation
from wn_rl.config import Config
from wn_rl.envs.base import Environments
from wn_rl.seeding import derive_seed

NATURE_EPISODES = 30
NATURE_MAX_FRAMES = 18_000  # five minutes at 60 frames a second


class Interrupted(Exception):
    """Raised inside an evaluation when the run is asked to stop; it starts again from its seed on resume."""


def make_evaluation_environments(config: Config, *, num_envs: int, seed: int) -> Environments:
    """The game of a run for an evaluation. A lost life ends no episode, whatever the discount says there."""
    return envs.make(config.suite, config.game, config.environment, num_envs=num_envs, seed=seed)


@contextlib.contextmanager
def evaluation_players(
    config: Config, network: nn.Module, *, num_envs: int, seed: int, needs_values: bool = False
) -> Iterator[tuple[Actor, Environments]]:
    """Context manager: an actor (see it for needs_values), and environments of evaluations for it.

    The network is in eval mode.
    """
    environments = make_evaluation_environments(config, num_envs=num_envs, seed=seed)
    try:
        actor_seed, spec = derive_seed(seed, "test_actor"), environments.spec
        stack = config.network.stack
        actor = Actor(network, num_envs, spec, stack=stack, seed=actor_seed, needs_values=needs_values)
        yield actor, environments
    finally:
        environments.close()


def run_epoch_evaluation(config: Config, network: nn.Module, *, seed: int, tick: Callable[[], None]) -> Episodes:
    """One `epoch` evaluation as the config says; network is in eval mode. tick may raise."""
    rules, learning, lanes = config.evaluation, config.learning, config.evaluation.num_envs
    values = Overestimation(lanes, learning.discount, learning.clip_rewards)
    players = evaluation_players(config, network, num_envs=lanes, seed=seed, needs_values=True)
    with players as (actor, environments):
        episodes = evaluate_steps(actor, environments, rules.epsilon, rules.steps, tick, values)
    return dataclasses.replace(episodes, overestimation=values.mean())


def nature_max_frames(config: Config) -> int:
    """Emulator frames after which a `nature` episode is cut: five minutes, or the run's limit if less."""
    return min(NATURE_MAX_FRAMES, config.environment.max_episode_frames)


def run_nature_evaluation(
    config: Config,
    network: nn.Module,
    *,
    seed: int,
    num_episodes: int = NATURE_EPISODES,
    tick: Callable[[], None] = lambda: None,
) -> Episodes:
    """One `nature` evaluation with the config's lanes and epsilon: episodes of at most five minutes.

    Epsilon 1 is the random policy on the same protocol.
    """
    limit = dataclasses.replace(config.environment, max_episode_frames=nature_max_frames(config))
    config, rules = dataclasses.replace(config, environment=limit), config.evaluation
    with evaluation_players(config, network, num_envs=rules.num_envs, seed=seed) as (actor, environments):
        return evaluate_episodes(actor, environments, rules.epsilon, num_episodes, tick)


def evaluate_steps(
    actor: Actor,
    environments: Environments,
    epsilon: float,
    num_steps: int,
    tick: Callable[[], None],
    values: Overestimation | None = None,
) -> Episodes:
    """The `epoch` protocol: play num_steps steps, all lanes together, and return the episodes completed.

    One lane: an episode that the steps cut counts, with its partial return, only if no episode was completed
    (deep_q_rl). One row more is played, which shows whether the last step ended an episode or cut it.
    Several: episodes are started until the steps are spent, then every started episode is finished and counts;
    cutting them would favour short episodes. tick is called at every step and may raise. values: gets every step.
    """
    if environments.num_envs > 1:
        return _play(actor, environments, epsilon, lambda started, steps: steps < num_steps, tick, values)
    return _play(actor, environments, epsilon, lambda started, steps: True, tick, values, num_steps)


def evaluate_episodes(
    actor: Actor, environments: Environments, epsilon: float, num_episodes: int, tick: Callable[[], None]
) -> Episodes:
    """The `nature` protocol: start exactly num_episodes episodes and finish them all."""
    return _play(actor, environments, epsilon, lambda started, steps: started < num_episodes, tick)


def _play(
    actor: Actor,
    environments: Environments,
    epsilon: float,
    may_start: Callable[[int, int], bool],
    tick: Callable[[], None],
    values: Overestimation | None = None,
    max_steps: int | None = None,
) -> Episodes:
    """Play until no lane has an episode that counts. A lane that may not start another episode is ignored."""
    step = environments.reset()
    episodes = EpisodeReturns(environments.num_envs)
    active = np.zeros(environments.num_envs, dtype=bool)
    finished: list[tuple[float, int]] = []
    num_started = num_steps = 0
    while True:
        finished += [(total, length) for lane, total, length in episodes.add(step) if active[lane]]
        for restarted in np.flatnonzero(step.first):
            active[restarted] = may_start(num_started, num_steps)
            num_started += int(active[restarted])
        if not active.any():
            break
        if max_steps is not None and num_steps >= max_steps:
            last = episodes.unfinished(0)
            environments.send(actor.act(step, epsilon))
            if environments.recv().first[0] or not finished:  # first: the last episode ended with the last step
                finished.append(last)
            break
        tick()
        actions = actor.act(step, epsilon)
        if values is not None:
            values.add(step, actor.max_q.cpu().numpy())
        environments.send(actions)
        num_steps += int(active.sum())
        step = environments.recv()
    return Episodes(tuple(r for r, _ in finished), tuple(n for _, n in finished))
